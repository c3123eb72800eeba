import Logging

/// Builds one line of text. Control characters are escaped, as messages and fields carry what clients and peers send.
struct TextLine {
    private(set) var bytes: [UInt8] = []

    mutating func append(raw text: String) { bytes += text.utf8 }

    mutating func append(message: String) { append(escaped: message) }

    /// ` name=value`, in quotes where the value would not be one word.
    mutating func append(_ name: String, _ value: Logger.MetadataValue) {
        bytes.append(0x20)
        append(escaped: name)
        bytes.append(0x3d)
        let text = "\(value)"
        let isWord = !text.isEmpty && !text.utf8.contains { $0 <= 0x20 || $0 == 0x22 || $0 == 0x3d }
        if !isWord { bytes.append(0x22) }
        append(escaped: text, escapesQuotes: !isWord)
        if !isWord { bytes.append(0x22) }
    }

    private mutating func append(escaped text: String, escapesQuotes: Bool = false) {
        var left = LineLogHandler.maximumText
        for scalar in text.unicodeScalars {
            left -= UTF8.width(scalar)
            if left < 0 { return append(raw: "…") }
            switch scalar {
            case "\"" where escapesQuotes: append(raw: #"\""#)
            case "\n": append(raw: #"\n"#)
            // C0 and C1 controls, and marks that reorder or break lines on a terminal.
            case "\u{0}"..."\u{1f}", "\u{7f}"..."\u{9f}", "\u{200e}"..."\u{200f}", "\u{2028}"..."\u{202e}",
                "\u{2066}"..."\u{2069}":
                append(raw: "\\u{\(String(scalar.value, radix: 16))}")
            default: bytes.append(contentsOf: UTF8.encode(scalar).unsafelyUnwrapped)
            }
        }
    }
}
