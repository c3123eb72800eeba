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
        // The common case first; whatever fails it is looked at again to find out why.
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
        func malformed(_ reason: String) -> DigestError { .malformed(input: excerpt(bytes), reason: reason) }
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
            return .unsupportedAlgorithm(algorithm: excerpt(name), input: excerpt(bytes))
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
