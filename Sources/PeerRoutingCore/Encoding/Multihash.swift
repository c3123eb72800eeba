/// A digest that names its function: varint code, varint length, digest.
package struct Multihash: Hashable, Sendable {
    package static let identity: UInt64 = 0x00
    package static let sha2256: UInt64 = 0x12
    /// Longest digest accepted, in bytes.
    package static let maximumDigestLength = 128

    package let code: UInt64
    package let digest: [UInt8]

    package init(code: UInt64, digest: [UInt8]) {
        self.code = code
        self.digest = digest
    }

    /// Takes exactly one multihash from all of the input.
    package init(parsing bytes: ArraySlice<UInt8>) throws(WireFormatError) {
        var cursor = ByteCursor(bytes)
        code = try Varint.readMultiformats(from: &cursor)
        let value = try cursor.readLengthPrefixed()
        guard value.count <= Self.maximumDigestLength else {
            throw WireFormatError("multihash digest of \(value.count) bytes")
        }
        guard cursor.isAtEnd else { throw WireFormatError("\(cursor.remaining) bytes after a multihash") }
        if code == Self.sha2256, value.count != 32 {
            throw WireFormatError("SHA2-256 multihash of \(value.count) bytes")
        }
        digest = Array(value)
    }

    /// The encoded form; 34 bytes for SHA2-256.
    package var bytes: [UInt8] {
        var bytes = Varint.encode(code)
        Varint.append(UInt64(digest.count), to: &bytes)
        return bytes + digest
    }

    /// The CID (version 1, raw content) in base32, for display: how other tools print a DHT key.
    package var contentIdentifierText: String {
        "b" + Base32.encode([0x01, 0x55] + bytes)
    }
}
