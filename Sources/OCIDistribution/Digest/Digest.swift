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

/// A digest algorithm registered by the OCI image specification (descriptor.md, "Registered algorithms").
public enum DigestAlgorithm: String, Sendable, Hashable, CaseIterable, Codable {
    /// SHA-256 (RFC 6234), which every implementation must support.
    case sha256
    /// SHA-512 (RFC 6234), which an implementation may support.
    case sha512

    /// Length of a digest in bytes: 32 or 64.
    public var byteCount: Int {
        switch self {
        case .sha256: 32
        case .sha512: 64
        }
    }
}

extension Digest: LosslessStringConvertible {
    /// Parses a digest; nil for whatever ``init(parsing:)`` would throw on.
    public init?(_ description: String) {
        do throws(DigestError) { try self.init(parsing: description) } catch { return nil }
    }

    /// Parses `algorithm ":" encoded`.
    ///
    /// - Throws: ``DigestError/unsupportedAlgorithm(algorithm:input:)`` when the string follows the grammar of the OCI
    ///   image specification but names an unregistered algorithm, else ``DigestError/malformed(input:reason:)``.
    @inlinable
    public init(parsing text: some StringProtocol) throws(DigestError) {
        self = try withUTF8(of: text) { (bytes) throws(DigestError) in try Digest(parsingUTF8: bytes) }
    }

    /// Parses the UTF-8 of `algorithm ":" encoded`; see ``init(parsing:)``.
    public init(parsingUTF8 bytes: UnsafeBufferPointer<UInt8>) throws(DigestError) {
        // The common case first; input that fails it is parsed again to find the reason.
        if let algorithm = Digest.algorithm(prefixing: bytes) {
            let encoded = UnsafeBufferPointer(rebasing: bytes[7...])
            if encoded.count == algorithm.byteCount * 2 {
                switch algorithm {
                case .sha256:
                    if let words = Words(hex: encoded, at: 0) {
                        storage = .sha256(words)
                        return
                    }
                case .sha512:
                    if let high = Words(hex: encoded, at: 0), let low = Words(hex: encoded, at: 64) {
                        storage = .sha512(Wide(high: high, low: low))
                        return
                    }
                }
            }
        }
        throw Digest.explain(bytes)
    }

    /// The registered algorithm whose name and colon `bytes` begin with.
    @inline(__always)
    private static func algorithm(prefixing bytes: UnsafeBufferPointer<UInt8>) -> DigestAlgorithm? {
        guard bytes.count > 7, bytes[0] == 0x73, bytes[1] == 0x68, bytes[2] == 0x61, bytes[6] == 0x3A else {
            return nil
        }
        switch (bytes[3], bytes[4], bytes[5]) {
        case (0x32, 0x35, 0x36): return .sha256
        case (0x35, 0x31, 0x32): return .sha512
        default: return nil
        }
    }

    /// Why `bytes`, which are not a digest, are not one.
    private static func explain(_ bytes: UnsafeBufferPointer<UInt8>) -> DigestError {
        func malformed(_ reason: String) -> DigestError { .malformed(input: sanitizedExcerpt(bytes), reason: reason) }
        // The longest sensible digest is shorter by far; do not scan what cannot be one.
        guard bytes.count <= 1024 else { return malformed("longer than 1024 bytes") }
        guard let colon = bytes.firstIndex(of: 0x3A) else { return malformed("no colon after the algorithm") }
        let name = bytes[..<colon]
        let encoded = bytes[(colon + 1)...]
        guard isAlgorithmName(name) else {
            return malformed("the algorithm must be [a-z0-9]+ parts separated by one of +._-")
        }
        let isEncoded = encoded.allSatisfy { $0.isAlphanumeric || $0 == 0x3D || $0 == 0x5F || $0 == 0x2D }
        guard !encoded.isEmpty, isEncoded else {
            return malformed("the encoded portion must be one or more of [a-zA-Z0-9=_-]")
        }
        guard let algorithm = DigestAlgorithm(rawValue: String(decoding: name, as: UTF8.self)) else {
            return .unsupportedAlgorithm(algorithm: sanitizedExcerpt(name), input: sanitizedExcerpt(bytes))
        }
        let length = algorithm.byteCount * 2
        guard encoded.count == length else {
            return malformed("\(algorithm) needs \(length) hexadecimal digits, not \(encoded.count)")
        }
        return malformed("\(algorithm) needs lower-case hexadecimal digits")
    }

    /// `algorithm-component [algorithm-separator algorithm-component]*`.
    private static func isAlgorithmName(_ bytes: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
        var afterComponent = false
        for byte in bytes {
            if byte.isDigit || byte.isLowercase {
                afterComponent = true
            } else {
                let isSeparator = byte == 0x2B || byte == 0x2E || byte == 0x5F || byte == 0x2D
                guard isSeparator, afterComponent else { return false }
                afterComponent = false
            }
        }
        return afterComponent
    }
}

extension Digest.Words {
    /// Reads 64 lower-case hexadecimal digits from `offset`; nil when one is anything else.
    @inline(__always)
    init?(hex digits: UnsafeBufferPointer<UInt8>, at offset: Int) {
        var invalid: UInt8 = 0
        @inline(__always) func word(_ index: Int) -> UInt64 {
            var value: UInt64 = 0
            for position in (offset &+ index &* 16)..<(offset &+ index &* 16 &+ 16) {
                let byte = digits[position]
                var nibble = byte &- 0x30
                if nibble > 9 {
                    nibble = byte &- 0x61
                    // Anything but a-f sets a high bit here.
                    invalid |= nibble > 5 ? 0x80 : 0
                    nibble = nibble &+ 10
                }
                value = value &<< 4 | UInt64(nibble & 0xF)
            }
            return value
        }
        self.init(a: word(0), b: word(1), c: word(2), d: word(3))
        guard invalid == 0 else { return nil }
    }
}

extension Digest: Codable {
    /// Decodes the digest from its string.
    ///
    /// - Throws: `DecodingError.dataCorrupted` with the ``DigestError`` as its underlying error.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        do {
            try self.init(parsing: text)
        } catch {
            throw DecodingError.dataCorrupted(
                .init(codingPath: decoder.codingPath, debugDescription: "\(error)", underlyingError: error))
        }
    }

    /// Encodes the digest as its string.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// Why a string is not a digest that can be used.
public enum DigestError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The input does not follow the grammar `algorithm ":" encoded` of the OCI image specification.
    /// The input is an excerpt that is safe to log.
    case malformed(input: String, reason: String)
    /// The input is well formed, but its algorithm is neither `sha256` nor `sha512`.
    case unsupportedAlgorithm(algorithm: String, input: String)

    /// A sentence naming the input and what is wrong with it.
    public var description: String {
        switch self {
        case .malformed(let input, let reason): "invalid digest \(input): \(reason)"
        case .unsupportedAlgorithm(let algorithm, let input):
            "unsupported digest algorithm \(algorithm) in \(input): sha256 and sha512 are supported"
        }
    }
}
