import OCIDistribution

/// A user name and a password for basic authentication (RFC 7617).
public struct BasicCredentials: Sendable {
    /// The value of the `Authorization` field that carries them, as it is sent to peers.
    public let authorization: String
    private let expected: [UInt8]

    /// Credentials.
    ///
    /// - Parameters:
    ///   - username: without a colon; one would become part of the password.
    ///   - password: any text.
    public init(username: String, password: String) {
        authorization = "Basic " + Self.base64(Array("\(username):\(password)".utf8))
        expected = Self.fingerprint(authorization.dropFirst(6))
    }

    /// Whether an `Authorization` field carries these credentials. Constant time.
    func matches(_ field: String?) -> Bool {
        let field = field ?? ""
        let isBasic = field.prefix(6).lowercased() == "basic "
        let given = Self.fingerprint(isBasic ? field.dropFirst(6) : "")
        var difference: UInt8 = isBasic ? 0 : 1
        for (left, right) in zip(expected, given) { difference |= left ^ right }
        return difference == 0
    }

    /// A hash has the same length for any input, so that the time of a comparison does not depend on the input's length.
    private static func fingerprint(_ token: Substring) -> [UInt8] {
        Digest.hash(.sha256, of: token.utf8).bytes
    }

    /// RFC 4648 §4.
    private static func base64(_ bytes: [UInt8]) -> String {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            var bits: UInt32 = 0
            for index in 0..<3 { bits = bits << 8 | UInt32(start + index < group.endIndex ? bytes[start + index] : 0) }
            for index in 0..<4 {
                text.append(index <= group.count ? alphabet[Int(bits >> (18 - 6 * index) & 63)] : 0x3d)
            }
        }
        return String(decoding: text, as: UTF8.self)
    }
}
