#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Values of `errno` that are told apart.
enum FileError {
    static let noEntry = ENOENT
    static let notDirectory = ENOTDIR
    static let loop = ELOOP
    static let invalid = EINVAL
    static let accessDenied = EACCES
}

extension Directory {
    /// Makes a directory and those above it. One that is there is no error.
    static func makePath(_ path: String) throws(ContentStoreError) {
        if mkdir(path, 0o755) == 0 || errno == EEXIST { return }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex else {
            throw ContentStoreError(errno: errno, "making of directory \(path)")
        }
        try makePath(String(path[..<slash]))
        guard mkdir(path, 0o755) == 0 || errno == EEXIST else {
            throw ContentStoreError(errno: errno, "making of directory \(path)")
        }
    }
}
