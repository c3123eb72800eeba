/// base36, lower case (multibase `k`): a number in digits 0-9a-z, leading zero bytes as leading `0`s.
package enum Base36 {
    private static let digits = RadixText(
        name: "base36", alphabet: "0123456789abcdefghijklmnopqrstuvwxyz", ignoresCase: true)

    package static func encode(_ bytes: some Collection<UInt8>) -> String { digits.encode(bytes) }

    package static func decode(_ text: some StringProtocol) throws(WireFormatError) -> [UInt8] {
        try digits.decode(text)
    }
}
