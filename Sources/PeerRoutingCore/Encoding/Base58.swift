/// base58btc: the text form of peer IDs. Leading zero bytes become leading `1`s.
package enum Base58 {
    private static let digits = RadixText(
        name: "base58", alphabet: "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")

    package static func encode(_ bytes: some Collection<UInt8>) -> String { digits.encode(bytes) }

    package static func decode(_ text: some StringProtocol) throws(WireFormatError) -> [UInt8] {
        try digits.decode(text)
    }
}
