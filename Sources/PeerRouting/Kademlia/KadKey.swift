import Crypto

/// A position in the Kademlia key space: the SHA-256 of a peer ID or of a content key, read as a 256-bit big-endian
/// number.
struct KadKey: Hashable, Comparable, Sendable {
    /// The four 64-bit words, most significant first.
    let words: (UInt64, UInt64, UInt64, UInt64)

    init(words: (UInt64, UInt64, UInt64, UInt64)) {
        self.words = words
    }

    /// The position of `bytes`: of a whole peer ID or multihash, not of the digest within.
    init(hashing bytes: [UInt8]) {
        self = SHA256.hash(data: bytes).withUnsafeBytes { digest in KadKey(bigEndian: digest) }
    }

    /// The position that is written as these 32 bytes; missing bytes count as zero.
    init(bigEndian bytes: UnsafeRawBufferPointer) {
        func word(_ index: Int) -> UInt64 {
            var value: UInt64 = 0
            for offset in index * 8..<index * 8 + 8 {
                value = value << 8 | (offset < bytes.count ? UInt64(bytes[offset]) : 0)
            }
            return value
        }
        self.init(words: (word(0), word(1), word(2), word(3)))
    }

    /// The 32 bytes, most significant first.
    var bytes: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(32)
        for word in [words.0, words.1, words.2, words.3] {
            for shift in stride(from: 56, through: 0, by: -8) {
                result.append(UInt8(truncatingIfNeeded: word >> UInt64(shift)))
            }
        }
        return result
    }

    /// The exclusive-or metric.
    @inline(__always)
    func distance(to other: KadKey) -> KadDistance {
        KadDistance(
            words: (
                words.0 ^ other.words.0, words.1 ^ other.words.1, words.2 ^ other.words.2, words.3 ^ other.words.3
            ))
    }

    /// The number of leading bits two positions share; 256 for equal positions.
    @inline(__always)
    func commonPrefixLength(with other: KadKey) -> Int {
        distance(to: other).leadingZeroBits
    }

    static func == (left: KadKey, right: KadKey) -> Bool {
        left.words.0 == right.words.0 && left.words.1 == right.words.1 && left.words.2 == right.words.2
            && left.words.3 == right.words.3
    }

    static func < (left: KadKey, right: KadKey) -> Bool { left.words < right.words }

    func hash(into hasher: inout Hasher) {
        // The words are a cryptographic hash already; two of them leave no room for chosen collisions.
        hasher.combine(words.0)
        hasher.combine(words.1)
    }
}

/// How far two positions lie apart: their exclusive or, compared as a 256-bit number.
struct KadDistance: Comparable, Hashable, Sendable {
    let words: (UInt64, UInt64, UInt64, UInt64)

    /// The leading zero bits: the common prefix length of the two positions.
    @inline(__always)
    var leadingZeroBits: Int {
        if words.0 != 0 { return words.0.leadingZeroBitCount }
        if words.1 != 0 { return 64 + words.1.leadingZeroBitCount }
        if words.2 != 0 { return 128 + words.2.leadingZeroBitCount }
        return 192 + words.3.leadingZeroBitCount
    }

    /// The distance as a fraction of the key space, 0 to 1, to 64 bits.
    var fraction: Double { Double(words.0) / 18_446_744_073_709_551_616.0 }

    static func == (left: KadDistance, right: KadDistance) -> Bool {
        left.words.0 == right.words.0 && left.words.1 == right.words.1 && left.words.2 == right.words.2
            && left.words.3 == right.words.3
    }

    @inline(__always)
    static func < (left: KadDistance, right: KadDistance) -> Bool {
        if left.words.0 != right.words.0 { return left.words.0 < right.words.0 }
        return (left.words.1, left.words.2, left.words.3) < (right.words.1, right.words.2, right.words.3)
    }

    func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)
        hasher.combine(words.1)
    }
}
