/// The content address of a piece of content, such as `sha256:<64 lower-case hexadecimal digits>` (OCI image
/// specification, descriptor.md, "Digests").
///
/// A SHA-256 digest is stored inline in 32 bytes and copied without reference counting; the rare SHA-512 is boxed.
/// Digests are ordered as their strings are.
public struct Digest: Sendable {
    /// Big-endian words, so that comparing words is comparing hexadecimal strings.
    struct Words: Hashable, Sendable {
        var a: UInt64 = 0
        var b: UInt64 = 0
        var c: UInt64 = 0
        var d: UInt64 = 0
    }

    final class Wide: Sendable {
        let high: Words
        let low: Words

        init(high: Words, low: Words) {
            self.high = high
            self.low = low
        }
    }

    enum Storage: Sendable {
        case sha256(Words)
        case sha512(Wide)
    }

    let storage: Storage

    init(storage: Storage) { self.storage = storage }

    /// The algorithm of this digest.
    public var algorithm: DigestAlgorithm {
        switch storage {
        case .sha256: .sha256
        case .sha512: .sha512
        }
    }

    /// Makes a digest of the hash itself; nil when the number of bytes is not that of the algorithm.
    public init?(algorithm: DigestAlgorithm, bytes: some Collection<UInt8>) {
        guard bytes.count == algorithm.byteCount else { return nil }
        let quick = bytes.withContiguousStorageIfAvailable { Digest(algorithm, unchecked: UnsafeRawBufferPointer($0)) }
        self = quick ?? Array(bytes).withUnsafeBytes { Digest(algorithm, unchecked: $0) }
    }

    /// `bytes` must hold `algorithm.byteCount` bytes.
    init(_ algorithm: DigestAlgorithm, unchecked bytes: UnsafeRawBufferPointer) {
        func words(at offset: Int) -> Words {
            func word(_ index: Int) -> UInt64 {
                UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + index * 8, as: UInt64.self))
            }
            return Words(a: word(0), b: word(1), c: word(2), d: word(3))
        }
        switch algorithm {
        case .sha256: storage = .sha256(words(at: 0))
        case .sha512: storage = .sha512(Wide(high: words(at: 0), low: words(at: 32)))
        }
    }

    /// The hash itself: 32 bytes for SHA-256, 64 for SHA-512.
    public var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: algorithm.byteCount) { buffer, count in
            func append(_ word: UInt64) {
                UnsafeMutableRawBufferPointer(buffer).storeBytes(
                    of: word.bigEndian, toByteOffset: count, as: UInt64.self)
                count += 8
            }
            forEachWord(append)
        }
    }

    /// The encoded portion of the digest: 64 or 128 lower-case hexadecimal digits.
    public var hex: String {
        let length = algorithm.byteCount * 2
        return String(unsafeUninitializedCapacity: length) { writeHex(into: $0.baseAddress, at: 0) }
    }

    /// Writes the hexadecimal digits at `offset` and returns the end.
    @inline(__always)
    private func writeHex(into base: UnsafeMutablePointer<UInt8>?, at offset: Int) -> Int {
        guard let base else { return offset }
        var position = offset
        forEachWord { word in
            var shift: UInt64 = 64
            while shift > 0 {
                shift &-= 4
                base[position] = hexDigit(UInt8(truncatingIfNeeded: word &>> shift) & 0xF)
                position &+= 1
            }
        }
        return position
    }

    @inline(__always)
    private func forEachWord(_ body: (UInt64) -> Void) {
        func four(_ words: Words) {
            body(words.a)
            body(words.b)
            body(words.c)
            body(words.d)
        }
        switch storage {
        case .sha256(let words): four(words)
        case .sha512(let wide):
            four(wide.high)
            four(wide.low)
        }
    }
}

extension Digest: CustomStringConvertible {
    /// The digest as a string: `algorithm:hex`.
    public var description: String {
        let prefix: StaticString =
            switch storage {
            case .sha256: "sha256:"
            case .sha512: "sha512:"
            }
        return String(unsafeUninitializedCapacity: 7 + algorithm.byteCount * 2) { buffer in
            guard let base = buffer.baseAddress else { return 0 }
            base.update(from: prefix.utf8Start, count: 7)
            return writeHex(into: base, at: 7)
        }
    }
}

extension Digest: Hashable {
    /// Whether algorithm and hash are the same.
    public static func == (left: Digest, right: Digest) -> Bool {
        switch (left.storage, right.storage) {
        case (.sha256(let left), .sha256(let right)): left == right
        case (.sha512(let left), .sha512(let right)): left.high == right.high && left.low == right.low
        default: false
        }
    }

    /// Feeds the hash into `hasher`.
    public func hash(into hasher: inout Hasher) {
        // All of it: digests come from clients, who could otherwise choose colliding ones.
        switch storage {
        case .sha256(let words): hasher.combine(words)
        case .sha512(let wide):
            hasher.combine(wide.high)
            hasher.combine(wide.low)
        }
    }
}

extension Digest: Comparable {
    /// Whether the string of the left digest sorts before that of the right one.
    public static func < (left: Digest, right: Digest) -> Bool {
        switch (left.storage, right.storage) {
        case (.sha256(let left), .sha256(let right)): left < right
        case (.sha512(let left), .sha512(let right)):
            left.high == right.high ? left.low < right.low : left.high < right.high
        case (.sha256, .sha512): true
        case (.sha512, .sha256): false
        }
    }
}

extension Digest.Words: Comparable {
    static func < (left: Self, right: Self) -> Bool {
        (left.a, left.b, left.c, left.d) < (right.a, right.b, right.c, right.d)
    }
}
