/// Transforms of the simple options, each with an error that says what is allowed.
package enum ScalarOption {
    /// `true` or `false`, in the spellings that Go programs accept.
    @Sendable static func boolean(_ text: String) throws -> Bool {
        switch text {
        case "1", "t", "T", "true", "TRUE", "True": return true
        case "0", "f", "F", "false", "FALSE", "False": return false
        default: throw OptionError("true or false")
        }
    }

    /// A whole number within bounds.
    static func integer(_ range: ClosedRange<Int>) -> @Sendable (String) throws -> Int {
        { text in
            guard let value = Int(text), range.contains(value) else {
                throw OptionError("a whole number from \(range.lowerBound) to \(range.upperBound)")
            }
            return value
        }
    }

    /// Any text but none at all, and nothing that could not be in a file name or a header.
    @Sendable package static func text(_ text: String) throws -> String {
        guard !text.isEmpty, text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7f }) else {
            throw OptionError("text without control characters")
        }
        return text
    }

    /// An `http(s)` URL.
    @Sendable static func httpURL(_ text: String) throws -> String {
        let lowered = text.lowercased()
        guard let scheme = ["http://", "https://"].first(where: lowered.hasPrefix), lowered.count > scheme.count,
            text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f })
        else { throw OptionError("a URL such as http://10.0.0.1:8080/id") }
        return text
    }
}
