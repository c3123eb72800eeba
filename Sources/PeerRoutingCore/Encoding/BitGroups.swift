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
