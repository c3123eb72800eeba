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
    /// never overwritten: its peers would take a node with another ID for a new one.
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

/// An Ed25519 private key as PKCS#8 in PEM (RFC 8410, RFC 7468): what Spegel writes as `private.key`.
enum PrivateKeyPEM {
    private static let header = "-----BEGIN PRIVATE KEY-----"
    private static let footer = "-----END PRIVATE KEY-----"
    /// All of the 48-byte encoding that precedes the seed.
    private static let prefix: [UInt8] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ]
    private static let ed25519: [UInt8] = [0x2b, 0x65, 0x70]

    static func encode(_ key: Curve25519.Signing.PrivateKey) -> String {
        let body = Base64.encode(prefix + Array(key.rawRepresentation), .standard)
        return "\(header)\n\(body)\n\(footer)\n"
    }

    static func decode(_ text: String) throws(WireFormatError) -> Curve25519.Signing.PrivateKey {
        let lines = text.split(whereSeparator: \.isNewline).map { line in
            line.filter { !$0.isWhitespace || $0 == " " }
        }
        guard let begin = lines.firstIndex(of: header),
            let end = lines[begin...].firstIndex(of: footer)
        else { throw WireFormatError("no PEM block \"PRIVATE KEY\"") }
        let der = try Base64.decode(lines[(begin + 1)..<end].joined().filter { $0 != " " }, .standard)
        let seed = try seed(inPKCS8: der)
        guard let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: Array(seed)) else {
            throw WireFormatError("not an Ed25519 private key")
        }
        return key
    }

    /// Walks PrivateKeyInfo: version, algorithm, key; what follows (attributes, a public key) is not needed.
    private static func seed(inPKCS8 der: [UInt8]) throws(WireFormatError) -> ArraySlice<UInt8> {
        var outer = ByteCursor(der)
        var info = ByteCursor(try element(&outer, tag: 0x30))
        guard outer.isAtEnd else { throw WireFormatError("bytes after the private key") }
        _ = try element(&info, tag: 0x02)
        var algorithm = ByteCursor(try element(&info, tag: 0x30))
        guard try element(&algorithm, tag: 0x06).elementsEqual(ed25519) else {
            throw WireFormatError("private key is not an Ed25519 key")
        }
        var inner = ByteCursor(try element(&info, tag: 0x04))
        let seed = try element(&inner, tag: 0x04)
        guard inner.isAtEnd, seed.count == 32 else {
            throw WireFormatError("Ed25519 private key of \(seed.count) bytes where 32 are needed")
        }
        return seed
    }

    private static func element(_ cursor: inout ByteCursor, tag: UInt8) throws(WireFormatError) -> ArraySlice<UInt8> {
        let found = try cursor.readByte()
        guard found == tag else { throw WireFormatError("private key: DER tag \(found) where \(tag) was expected") }
        var length = Int(try cursor.readByte())
        if length == 0x81 {
            length = Int(try cursor.readByte())
        } else if length > 0x7f {
            throw WireFormatError("private key: DER element too long")
        }
        return try cursor.read(length)
    }
}
