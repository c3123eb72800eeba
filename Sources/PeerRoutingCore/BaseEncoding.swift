/// Bytes as one number in the digits of an alphabet, leading zero bytes as leading zero digits: the work of ``Base36``
/// and ``Base58``.
package struct RadixText: Sendable {
    /// Longest text decoded; the work grows with the square of the length.
    package static let maximumLength = 128

    /// What the text is called in errors.
    package let name: String
    private let alphabet: [UInt8]
    /// By character; 255 for one that is no digit.
    private let values: [UInt8]

    /// - Parameter ignoresCase: Read capitals as the small letters of the alphabet.
    package init(name: String, alphabet: String, ignoresCase: Bool = false) {
        self.name = name
        self.alphabet = Array(alphabet.utf8)
        var values = [UInt8](repeating: 255, count: 256)
        for (value, character) in alphabet.utf8.enumerated() { values[Int(character)] = UInt8(value) }
        if ignoresCase {
            for (value, character) in alphabet.uppercased().utf8.enumerated() { values[Int(character)] = UInt8(value) }
        }
        self.values = values
    }

    package func encode(_ bytes: some Collection<UInt8>) -> String {
        let zeros = bytes.prefix { $0 == 0 }.count
        var digits: [UInt8] = []
        for byte in bytes.dropFirst(zeros) {
            Self.multiplyAdd(&digits, by: 256, add: Int(byte), base: alphabet.count)
        }
        var text = [UInt8](repeating: alphabet[0], count: zeros)
        text.append(contentsOf: digits.reversed().map { alphabet[Int($0)] })
        return String(decoding: text, as: UTF8.self)
    }

    package func decode(_ text: some StringProtocol) throws(WireFormatError) -> [UInt8] {
        guard text.utf8.count <= Self.maximumLength else {
            throw WireFormatError("\(name) text longer than \(Self.maximumLength): \(WireFormatError.quote(text))")
        }
        let zeros = text.utf8.prefix { $0 == alphabet[0] }.count
        var bytes: [UInt8] = []
        for character in text.utf8.dropFirst(zeros) {
            let digit = Int(values[Int(character)])
            guard digit < alphabet.count else { throw WireFormatError("not \(name): \(WireFormatError.quote(text))") }
            Self.multiplyAdd(&bytes, by: alphabet.count, add: digit, base: 256)
        }
        return [UInt8](repeating: 0, count: zeros) + bytes.reversed()
    }

    /// digits = digits × factor + addend, in the given base (at most 256), lowest digit first.
    private static func multiplyAdd(_ digits: inout [UInt8], by factor: Int, add addend: Int, base: Int) {
        var carry = addend
        for index in digits.indices {
            carry += Int(digits[index]) * factor
            digits[index] = UInt8(carry % base)
            carry /= base
        }
        while carry > 0 {
            digits.append(UInt8(carry % base))
            carry /= base
        }
    }
}

/// Bytes as digits of a few bits each, highest bits first: the work of ``Base32`` and ``Base64``.
package enum BitGroups {
    /// Writes bytes with the digits of an alphabet, the last one filled up with zero bits.
    package static func encode(_ bytes: some Sequence<UInt8>, bits width: Int, alphabet: [UInt8]) -> [UInt8] {
        let mask = 1 << width - 1
        var text: [UInt8] = []
        text.reserveCapacity((bytes.underestimatedCount * 8 + width - 1) / width)
        var bits = 0
        var count = 0
        for byte in bytes {
            bits = (bits << 8 | Int(byte)) & 0xffff
            count += 8
            while count >= width {
                count -= width
                text.append(alphabet[bits >> count & mask])
            }
        }
        if count > 0 { text.append(alphabet[bits << (width - count) & mask]) }
        return text
    }

    /// Reads digits back; the unused bits at the end must be zero and fewer than a digit.
    ///
    /// - Parameters:
    ///   - name: What the text is called in errors.
    ///   - digit: The value of a character; nil when it is none of the alphabet.
    package static func decode(
        _ text: some Sequence<UInt8>, bits width: Int, _ name: String, digit: (UInt8) -> Int?
    ) throws(WireFormatError) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.underestimatedCount * width / 8)
        var bits = 0
        var count = 0
        for character in text {
            guard let digit = digit(character) else { throw WireFormatError("a character that is not \(name)") }
            bits = (bits << width | digit) & 0xffff
            count += width
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> count))
            }
        }
        guard count < width, bits & (1 << count - 1) == 0 else {
            throw WireFormatError("\(name) text ends inside a byte")
        }
        return bytes
    }
}

/// RFC 4648 base32, lower case, without padding (multibase `b`).
package enum Base32 {
    private static let alphabet = Array("abcdefghijklmnopqrstuvwxyz234567".utf8)

    package static func encode(_ bytes: some Sequence<UInt8>) -> String {
        String(decoding: BitGroups.encode(bytes, bits: 5, alphabet: alphabet), as: UTF8.self)
    }

    /// Decodes either case; the unused bits at the end must be zero and fewer than a digit.
    package static func decode(_ text: some StringProtocol) throws(WireFormatError) -> [UInt8] {
        try BitGroups.decode(text.utf8, bits: 5, "base32") { character in
            switch character {
            case UInt8(ascii: "a")...UInt8(ascii: "z"): Int(character - UInt8(ascii: "a"))
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): Int(character - UInt8(ascii: "A"))
            case UInt8(ascii: "2")...UInt8(ascii: "7"): Int(character - UInt8(ascii: "2")) + 26
            default: nil
            }
        }
    }
}

/// base36, lower case (multibase `k`): a number in digits 0-9a-z, leading zero bytes as leading `0`s.
package enum Base36 {
    private static let digits = RadixText(
        name: "base36", alphabet: "0123456789abcdefghijklmnopqrstuvwxyz", ignoresCase: true)

    package static func encode(_ bytes: some Collection<UInt8>) -> String { digits.encode(bytes) }

    package static func decode(_ text: some StringProtocol) throws(WireFormatError) -> [UInt8] {
        try digits.decode(text)
    }
}

/// base58btc: the text form of peer IDs. Leading zero bytes become leading `1`s.
package enum Base58 {
    private static let digits = RadixText(
        name: "base58", alphabet: "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")

    package static func encode(_ bytes: some Collection<UInt8>) -> String { digits.encode(bytes) }

    package static func decode(_ text: some StringProtocol) throws(WireFormatError) -> [UInt8] {
        try digits.decode(text)
    }
}

/// RFC 4648 base64, in the usual alphabet with padding (PEM) or the URL-safe one without (multibase `u`).
package enum Base64 {
    package enum Variant: Sendable {
        case standard
        case urlUnpadded
    }

    private static let common = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".utf8)

    private static func alphabet(_ variant: Variant) -> [UInt8] {
        common + Array((variant == .standard ? "+/" : "-_").utf8)
    }

    package static func encode(_ bytes: some Sequence<UInt8>, _ variant: Variant) -> String {
        var text = BitGroups.encode(bytes, bits: 6, alphabet: alphabet(variant))
        while variant == .standard, text.count % 4 != 0 { text.append(UInt8(ascii: "=")) }
        return String(decoding: text, as: UTF8.self)
    }

    package static func decode(_ text: some StringProtocol, _ variant: Variant) throws(WireFormatError) -> [UInt8] {
        var characters = Array(text.utf8)
        if variant == .standard {
            guard characters.count % 4 == 0 else { throw WireFormatError("base64 text of \(characters.count) digits") }
            for _ in 0..<2 where characters.last == UInt8(ascii: "=") { characters.removeLast() }
        }
        var digits: [UInt8: Int] = [:]
        for (value, character) in alphabet(variant).enumerated() { digits[character] = value }
        return try BitGroups.decode(characters, bits: 6, "base64") { digits[$0] }
    }
}

/// Text that names its base by its first character: the few bases peers use for IDs.
package enum Multibase {
    /// Longest text accepted.
    package static let maximumTextLength = 256

    package static func decode(_ text: some StringProtocol) throws(WireFormatError) -> [UInt8] {
        guard text.utf8.count <= maximumTextLength else {
            throw WireFormatError("multibase text longer than \(maximumTextLength): \(WireFormatError.quote(text))")
        }
        switch text.utf8.first {
        case UInt8(ascii: "b"), UInt8(ascii: "B"): return try Base32.decode(text.dropFirst())
        case UInt8(ascii: "k"), UInt8(ascii: "K"): return try Base36.decode(text.dropFirst())
        case UInt8(ascii: "z"): return try Base58.decode(text.dropFirst())
        case UInt8(ascii: "f"), UInt8(ascii: "F"): return try hex(text.dropFirst())
        case UInt8(ascii: "u"): return try Base64.decode(text.dropFirst(), .urlUnpadded)
        default: throw WireFormatError("unknown multibase: \(WireFormatError.quote(text))")
        }
    }

    private static func hex(_ text: some StringProtocol) throws(WireFormatError) -> [UInt8] {
        let digits = text.utf8.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
        guard digits.count == text.utf8.count, digits.count % 2 == 0 else {
            throw WireFormatError("not base16: \(WireFormatError.quote(text))")
        }
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }
}
