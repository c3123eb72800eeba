import Crypto

/// The DHT key of a registry string: the SHA2-256 multihash of the string's UTF-8 bytes, and its position.
///
/// Only the digest is kept; the two bytes in front of it are the same for every key made from a string.
struct ContentKey: Hashable, Sendable {
    /// The digest within the multihash.
    let digest: KadKey
    /// The position in the key space: the SHA-256 of the whole multihash.
    let position: KadKey

    /// The key of a registry string, which is used verbatim: even a digest string is hashed again.
    init(_ key: String) {
        var copy = key
        digest = copy.withUTF8 { SHA256.hash(data: $0).withUnsafeBytes { KadKey(bigEndian: $0) } }
        position = KadKey(hashing: [0x12, 0x20] + digest.bytes)
    }

    /// The key with a digest and position known from before.
    init(digest: KadKey, position: KadKey) {
        self.digest = digest
        self.position = position
    }

    /// The 34 bytes that stand for the key on the wire.
    var multihash: [UInt8] { [0x12, 0x20] + digest.bytes }

    /// The CIDv1 (raw) of the multihash in base32, as other tools show the key.
    var cid: String { "b" + Base32.encode([0x01, 0x55] + multihash) }

    static func == (left: ContentKey, right: ContentKey) -> Bool { left.digest == right.digest }
    func hash(into hasher: inout Hasher) { hasher.combine(digest) }
}
