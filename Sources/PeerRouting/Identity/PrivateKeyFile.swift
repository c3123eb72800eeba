import Crypto

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Why an identity could not be read from or written to its directory.
public struct IdentityFileError: Error, Sendable, CustomStringConvertible {
    /// The file or directory concerned.
    public let path: String
    /// What went wrong with it.
    public let reason: String

    /// Path and reason.
    public var description: String { "\(path): \(reason)" }
}

extension NodeIdentity {
    /// Longest key file read, in bytes.
    private static let maximumFileSize = 16384

    /// The identity kept in `private.key` of a data directory; made and stored there when the file does not exist.
    ///
    /// The directory is created with mode 0755, the file with 0600. A file that exists but cannot be used is an error,
    /// never overwritten: a node that silently changed its ID would be a stranger to its cluster.
    ///
    /// - Throws: ``IdentityFileError`` naming the path.
    public static func loadOrCreate(inDirectory directory: String) throws(IdentityFileError) -> NodeIdentity {
        if let identity = try load(fromDirectory: directory) { return identity }
        let path = path(inDirectory: directory)
        try createDirectory(directory)
        let identity = NodeIdentity()
        try write(PrivateKeyPEM.encode(identity.privateKey), to: path, directory: directory)
        // Another process may have been first: what is in the file decides.
        guard let text = try read(path) else { throw IdentityFileError(path: path, reason: "vanished after writing") }
        return try decode(text, path: path)
    }

    /// The identity kept in `private.key` of a data directory; nil when there is no such file.
    ///
    /// - Throws: ``IdentityFileError`` naming the path.
    public static func load(fromDirectory directory: String) throws(IdentityFileError) -> NodeIdentity? {
        let path = path(inDirectory: directory)
        guard let text = try read(path) else { return nil }
        return try decode(text, path: path)
    }

    private static func path(inDirectory directory: String) -> String {
        directory.hasSuffix("/") ? "\(directory)private.key" : "\(directory)/private.key"
    }

    private static func decode(_ text: String, path: String) throws(IdentityFileError) -> NodeIdentity {
        do {
            return NodeIdentity(try PrivateKeyPEM.decode(text))
        } catch {
            throw IdentityFileError(path: path, reason: "\(error)")
        }
    }

    private static func systemError(_ path: String, _ action: String) -> IdentityFileError {
        IdentityFileError(path: path, reason: "\(action): \(String(cString: strerror(errno)))")
    }

    /// The file's text, nil when there is no such file.
    private static func read(_ path: String) throws(IdentityFileError) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw systemError(path, "cannot open")
        }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: maximumFileSize + 1)
        var count = 0
        while count < bytes.count {
            let start = count
            let result = bytes.withUnsafeMutableBytes { buffer in
                #if canImport(Darwin)
                    Darwin.read(descriptor, buffer.baseAddress.map { $0 + start }, buffer.count - start)
                #elseif canImport(Glibc)
                    Glibc.read(descriptor, buffer.baseAddress.map { $0 + start }, buffer.count - start)
                #elseif canImport(Musl)
                    Musl.read(descriptor, buffer.baseAddress.map { $0 + start }, buffer.count - start)
                #endif
            }
            if result < 0, errno == EINTR { continue }
            guard result >= 0 else { throw systemError(path, "cannot read") }
            if result == 0 { break }
            count += result
        }
        guard count <= maximumFileSize else {
            throw IdentityFileError(path: path, reason: "larger than \(maximumFileSize) bytes: not a private key")
        }
        guard let text = String(validating: bytes.prefix(count), as: UTF8.self) else {
            throw IdentityFileError(path: path, reason: "not text: a private key in PEM was expected")
        }
        return text
    }

    private static func createDirectory(_ directory: String) throws(IdentityFileError) {
        var path = directory.hasPrefix("/") ? "/" : ""
        for part in directory.split(separator: "/") {
            path += path.isEmpty || path.hasSuffix("/") ? part : "/\(part)"
            if mkdir(path, 0o755) != 0, errno != EEXIST { throw systemError(path, "cannot create directory") }
        }
    }

    /// Writes a temporary file and links it to its name, which fails, harmlessly, when the name has been taken.
    private static func write(_ text: String, to path: String, directory: String) throws(IdentityFileError) {
        let temporary = "\(path).\(getpid()).\(UInt32.random(in: 0 ... .max))"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw systemError(temporary, "cannot create") }
        defer { unlink(temporary) }
        var remaining = Array(text.utf8)[...]
        while !remaining.isEmpty {
            let written = remaining.withUnsafeBytes { buffer in
                #if canImport(Darwin)
                    Darwin.write(descriptor, buffer.baseAddress, buffer.count)
                #elseif canImport(Glibc)
                    Glibc.write(descriptor, buffer.baseAddress, buffer.count)
                #elseif canImport(Musl)
                    Musl.write(descriptor, buffer.baseAddress, buffer.count)
                #endif
            }
            if written < 0, errno == EINTR { continue }
            guard written > 0 else {
                close(descriptor)
                throw systemError(temporary, "cannot write")
            }
            remaining = remaining.dropFirst(written)
        }
        let synced = fsync(descriptor)
        guard close(descriptor) == 0, synced == 0 else { throw systemError(temporary, "cannot write") }
        guard link(temporary, path) == 0 || errno == EEXIST else { throw systemError(path, "cannot create") }
        let directoryDescriptor = open(directory, O_RDONLY | O_CLOEXEC)
        if directoryDescriptor >= 0 {
            fsync(directoryDescriptor)
            close(directoryDescriptor)
        }
    }
}
