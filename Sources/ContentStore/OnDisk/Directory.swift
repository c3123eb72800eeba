import ResourceLimits

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// An open directory, to which names are relative. No name is ever followed through a symbolic link, so nothing outside
/// of the directory is reached through it. Closed when released.
final class Directory: Sendable {
    let descriptor: CInt
    /// For messages only.
    let path: String

    private init(descriptor: CInt, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    deinit { close(descriptor) }

    /// Opens a directory by its path. The path itself may lead through symbolic links.
    static func open(path: String) throws(ContentStoreError) -> Directory {
        let descriptor = retrying { openPath(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        guard descriptor >= 0 else { throw ContentStoreError(errno: errno, "open of \(path)") }
        return Directory(descriptor: descriptor, path: path)
    }

    /// Opens a directory in this one; `nil` when there is none.
    func directory(_ name: String) throws(ContentStoreError) -> Directory? {
        let descriptor = openDescriptor(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            let number = errno
            if let status = try status(name), !status.isDirectory {
                throw .notALayout(path: path, reason: "\(name) is not a directory (symbolic links are not followed)")
            }
            throw ContentStoreError(errno: number, "open of \(path)/\(name)")
        }
        return Directory(descriptor: descriptor, path: "\(path)/\(name)")
    }

    /// Opens a directory in this one, which is made if there is none.
    func makeDirectory(_ name: String, mode: mode_t = 0o755) throws(ContentStoreError) -> Directory {
        if let directory = try directory(name) { return directory }
        if mkdirat(descriptor, name, mode) != 0, errno != EEXIST {
            throw ContentStoreError(errno: errno, "making of directory \(path)/\(name)")
        }
        try sync()
        guard let directory = try directory(name) else {
            throw .io("open of \(path)/\(name)", errno: ENOENT)
        }
        return directory
    }

    /// The identity of a directory, independent of its name.
    struct Place: Sendable, Hashable {
        var device: UInt64
        var inode: UInt64
    }

    /// The identity of this directory, which differs from that of another one with the same name.
    var place: Place {
        get throws(ContentStoreError) {
            var status = stat()
            guard fstat(descriptor, &status) == 0 else { throw ContentStoreError(errno: errno, "stat of \(path)") }
            return Place(
                device: UInt64(truncatingIfNeeded: status.st_dev), inode: UInt64(truncatingIfNeeded: status.st_ino))
        }
    }

    /// What a name is, without following it; `nil` when there is none.
    func status(_ name: String) throws(ContentStoreError) -> FileStatus? {
        var status = stat()
        guard retrying({ fstatat(descriptor, name, &status, AT_SYMLINK_NOFOLLOW) }) == 0 else {
            if errno == ENOENT { return nil }
            throw ContentStoreError(errno: errno, "stat of \(path)/\(name)")
        }
        return FileStatus(status)
    }

    /// Opens a file for reading; `nil` when there is none.
    ///
    /// - Throws: ``ContentStoreError``; among them `ELOOP` for a symbolic link and `EINVAL` for anything else that is
    ///   not a regular file.
    func openFile(_ name: String) throws(ContentStoreError) -> OpenFile? {
        // O_NONBLOCK: opening a named pipe must not block.
        let file = openDescriptor(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
        guard file >= 0 else {
            if errno == ENOENT { return nil }
            throw ContentStoreError(errno: errno, "open of \(path)/\(name)")
        }
        let opened = OpenFile(descriptor: file, directoryPath: path, name: name)
        guard try opened.status().isRegular else { throw .io("open of \(path)/\(name)", errno: EINVAL) }
        return opened
    }

    /// Opens a file for writing, making it if needed.
    func openForWriting(_ name: String, exclusively: Bool, mode: mode_t = 0o644) throws(ContentStoreError) -> OpenFile {
        let file = openDescriptor(
            name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | (exclusively ? O_EXCL : 0), mode: mode)
        guard file >= 0 else { throw ContentStoreError(errno: errno, "open of \(path)/\(name) for writing") }
        return OpenFile(descriptor: file, directoryPath: path, name: name)
    }

    /// The names in this directory, but for `.` and `..`, in no particular order.
    func entries() throws(ContentStoreError) -> [String] {
        var names: [String] = []
        try forEachEntry { names.append($0) }
        return names
    }

    /// Calls `body` with each name in this directory, but for `.` and `..`.
    func forEachEntry(_ body: (String) -> Void) throws(ContentStoreError) {
        // A descriptor of its own, as reading moves the position.
        let own = openDescriptor(".", O_RDONLY | O_DIRECTORY)
        guard own >= 0, let stream = fdopendir(own) else {
            let number = errno
            if own >= 0 { close(own) }
            throw ContentStoreError(errno: number, "listing of \(path)")
        }
        defer { closedir(stream) }
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw ContentStoreError(errno: errno, "listing of \(path)") }
                return
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: Int(NAME_MAX) + 1) { String(cString: $0) }
            }
            if name != ".", name != ".." { body(name) }
        }
    }

    /// Renames a file of `other` into this directory, replacing what had the name.
    func rename(_ oldName: String, in other: Directory, to newName: String) throws(ContentStoreError) {
        guard retrying({ renameat(other.descriptor, oldName, descriptor, newName) }) == 0 else {
            throw ContentStoreError(errno: errno, "renaming to \(path)/\(newName)")
        }
    }

    /// Removes a file. One that is not there is no error.
    func unlink(_ name: String) throws(ContentStoreError) {
        guard retrying({ unlinkat(descriptor, name, 0) }) == 0 || errno == ENOENT else {
            throw ContentStoreError(errno: errno, "removal of \(path)/\(name)")
        }
    }

    /// Makes changes of names durable.
    func sync() throws(ContentStoreError) {
        // Some file systems cannot sync a directory and return EINVAL.
        guard retrying({ fsync(descriptor) }) == 0 || errno == EINVAL else {
            throw ContentStoreError(errno: errno, "sync of \(path)")
        }
    }

    private func openDescriptor(_ name: String, _ flags: CInt, mode: mode_t = 0) -> CInt {
        guard !DescriptorReserve.process.isSpent else {
            errno = EMFILE
            return -1
        }
        let opened = retrying { openat(descriptor, name, flags | O_CLOEXEC, mode) }
        if opened < 0, errno == EMFILE || errno == ENFILE {
            let reason = errno
            DescriptorReserve.process.noneLeft()
            errno = reason
        }
        return opened
    }
}

/// Repeats a system call that a signal interrupted.
func retrying(_ call: () -> CInt) -> CInt {
    while true {
        let result = call()
        if result != -1 || errno != EINTR { return result }
    }
}

private func openPath(_ path: String, _ flags: CInt) -> CInt { open(path, flags) }

/// Values of `errno` that are handled separately.
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
