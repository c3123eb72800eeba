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
