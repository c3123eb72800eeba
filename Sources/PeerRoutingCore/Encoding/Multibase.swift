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
