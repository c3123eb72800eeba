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
