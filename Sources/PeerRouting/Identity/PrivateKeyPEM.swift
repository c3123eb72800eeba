import Crypto

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
