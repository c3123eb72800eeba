/// The name of a peer: the multihash of its public key, proved in each connection's handshake.
///
/// IDs are compared as bytes. Those of key types other than Ed25519 are kept as opaque names.
/// See https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
public struct PeerID: Hashable, Sendable, LosslessStringConvertible {
    /// Longest encoded ID accepted, in bytes.
    public static let maximumLength = 96

    /// The multihash; 38 bytes for Ed25519 keys.
    public let bytes: [UInt8]

    /// Takes an encoded ID.
    ///
    /// - Throws: ``WireFormatError`` when the bytes are not one multihash made from a key: identity, or SHA2-256.
    public init(bytes: some Collection<UInt8>) throws(WireFormatError) {
        guard bytes.count <= Self.maximumLength else { throw WireFormatError("peer ID of \(bytes.count) bytes") }
        let array = Array(bytes)
        let multihash = try Multihash(parsing: array[...])
        guard multihash.code == Multihash.identity || multihash.code == Multihash.sha2256 else {
            throw WireFormatError("peer ID with hash function \(multihash.code)")
        }
        guard !multihash.digest.isEmpty else { throw WireFormatError("peer ID without a key") }
        self.bytes = array
    }

    /// Parses the text form: base58btc, or a CID with codec libp2p-key (0x72) in any usual multibase.
    ///
    /// - Throws: ``WireFormatError`` naming the text.
    public init(parsing text: some StringProtocol) throws(WireFormatError) {
        do throws(WireFormatError) {
            if text.hasPrefix("1") || text.hasPrefix("Qm") {
                try self.init(bytes: try Base58.decode(text))
                return
            }
            let cid = try Multibase.decode(text)
            guard cid.starts(with: [0x01, 0x72]) else { throw WireFormatError("not a CID of a libp2p key") }
            try self.init(bytes: cid.dropFirst(2))
        } catch {
            throw WireFormatError("peer ID \(WireFormatError.quote(text)): \(error.message)")
        }
    }

    /// Feeds the bytes into `hasher`, all at once: IDs are looked up with each request to a peer.
    public func hash(into hasher: inout Hasher) {
        bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
    }

    /// The text form parsed; nil when it is not valid. Use ``init(parsing:)`` for the reason.
    public init?(_ description: String) {
        guard let peer = try? PeerID(parsing: description) else { return nil }
        self = peer
    }

    /// The ID that a multihash of a key is.
    package init(_ multihash: Multihash) {
        bytes = multihash.bytes
    }

    /// The base58btc form, `12D3KooW…` for Ed25519 keys.
    public var description: String { Base58.encode(bytes) }

    /// The CIDv1 form in base32.
    package var contentIdentifierText: String { "b" + Base32.encode([0x01, 0x72] + bytes) }

    /// The CIDv1 form in base36.
    package var base36Text: String { "k" + Base36.encode([0x01, 0x72] + bytes) }
}

extension PeerID: Comparable {
    /// The order of the bytes.
    public static func < (left: PeerID, right: PeerID) -> Bool {
        left.bytes.lexicographicallyPrecedes(right.bytes)
    }
}

extension PeerID: Codable {
    /// Decodes any text form.
    public init(from decoder: any Decoder) throws {
        try self.init(parsing: try decoder.singleValueContainer().decode(String.self))
    }

    /// Encodes the base58 form.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

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
