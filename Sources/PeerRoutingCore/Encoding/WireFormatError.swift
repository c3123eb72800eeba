/// Bytes or text from outside that do not follow their format.
///
/// Every decoder of this module throws it. The message names what was wrong and, shortened, the input.
public struct WireFormatError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What was expected and what was found.
    public let message: String

    /// Makes an error with the given message.
    public init(_ message: String) {
        self.message = message
    }

    /// The message.
    public var description: String { message }

    /// Quotes text from outside for an error message: at most 80 characters, control characters escaped.
    package static func quote(_ text: some StringProtocol) -> String {
        let head = text.unicodeScalars.prefix(80)
        let quoted = head.map { $0.escaped(asASCII: false) }.joined()
        return head.endIndex == text.unicodeScalars.endIndex ? "\"\(quoted)\"" : "\"\(quoted)…\""
    }
}
