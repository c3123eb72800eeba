import ContentStore

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Explains to an operator why containerd's socket cannot be used.
enum SocketDiagnosis {
    /// The longest path of a Unix domain socket, without the final zero.
    static let maximumPathLength = 107

    /// Tries to connect, which does not block on a Unix domain socket.
    ///
    /// - Throws: ``ContentStoreError/unavailable(_:)`` with the reason and what to do.
    static func probe(_ path: String) throws(ContentStoreError) {
        guard path.utf8.count <= maximumPathLength else {
            throw .unavailable("the path of containerd's socket is longer than \(maximumPathLength) bytes: \(path)")
        }
        var status = stat()
        guard stat(path, &status) == 0 else { throw .unavailable(explain(path, errno)) }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw .unavailable("\(path) is not a socket; point --containerd-sock at containerd's socket")
        }
        #if canImport(Glibc)
            let type = CInt(SOCK_STREAM.rawValue)
        #else
            let type = SOCK_STREAM
        #endif
        let descriptor = socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { throw .unavailable("no socket can be created: \(message(errno))") }
        defer { close(descriptor) }
        // A full backlog would block otherwise; it means that a process listens.
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0 || errno == EAGAIN || errno == EINPROGRESS else {
            throw .unavailable(explain(path, errno))
        }
    }

    private static func explain(_ path: String, _ number: CInt) -> String {
        switch number {
        case ENOENT, ENOTDIR:
            "containerd's socket \(path) does not exist: containerd is not running, or its socket is elsewhere"
                + " (--containerd-sock) or not mounted"
        case EACCES, EPERM:
            "permission denied for containerd's socket \(path): it usually belongs to root, so run as root or as a"
                + " user that may write to it"
        case ECONNREFUSED:
            "no process listens on containerd's socket \(path): containerd is stopped or restarting"
        default:
            "containerd's socket \(path) cannot be used: \(message(number))"
        }
    }

    private static func message(_ number: CInt) -> String { String(cString: strerror(number)) }
}
