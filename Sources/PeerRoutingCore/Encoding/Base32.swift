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
