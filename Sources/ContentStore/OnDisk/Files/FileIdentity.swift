#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// What tells one state of a file from another without reading it.
struct FileIdentity: Sendable, Hashable, Codable {
    var inode: UInt64
    /// In bytes.
    var size: Int64
    /// Time of the last change of the bytes, in nanoseconds since 1970.
    var modified: Int64
}

/// What `stat(2)` says of a file, as far as a store asks.
struct FileStatus: Sendable {
    var identity: FileIdentity
    var isRegular: Bool
    var isDirectory: Bool
    var linkCount: UInt64

    init(_ status: stat) {
        #if canImport(Darwin)
            let time = status.st_mtimespec
        #else
            let time = status.st_mtim
        #endif
        let seconds = Int64(time.tv_sec).multipliedReportingOverflow(by: 1_000_000_000)
        identity = FileIdentity(
            inode: UInt64(truncatingIfNeeded: status.st_ino), size: Int64(status.st_size),
            modified: seconds.partialValue &+ Int64(time.tv_nsec))
        isRegular = status.st_mode & S_IFMT == S_IFREG
        isDirectory = status.st_mode & S_IFMT == S_IFDIR
        linkCount = UInt64(status.st_nlink)
    }
}
