import Logging

/// Builds one JSON object without a dictionary in between, so that the order of its members is the order of the calls.
struct JSONLine {
    private(set) var needsComma = false
    var bytes: [UInt8] = []

    init() {
        bytes.reserveCapacity(512)
    }

    mutating func begin() {
        bytes.append(UInt8(ascii: "{"))
        needsComma = false
    }

    mutating func end() {
        bytes.append(UInt8(ascii: "}"))
        needsComma = true
    }

    mutating func name(_ name: String) {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        string(name)
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    mutating func field(_ name: String, text: String) {
        self.name(name)
        string(text)
        needsComma = true
    }

    mutating func field(_ name: String, raw: String) {
        self.name(name)
        bytes.append(contentsOf: raw.utf8)
        needsComma = true
    }

    mutating func value(_ value: Logger.MetadataValue) {
        switch value {
        case .string(let text):
            string(text)
        case .stringConvertible(let value):
            switch value {
            case let number as any FixedWidthInteger: bytes.append(contentsOf: String(describing: number).utf8)
            case let number as Double where number.isFinite: bytes.append(contentsOf: String(describing: number).utf8)
            case let flag as Bool: bytes.append(contentsOf: String(describing: flag).utf8)
            default: string(value.description)
            }
        case .array(let values):
            bytes.append(UInt8(ascii: "["))
            for (index, element) in values.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                self.value(element)
            }
            bytes.append(UInt8(ascii: "]"))
        case .dictionary(let fields):
            begin()
            for (name, element) in fields.sorted(by: { $0.key < $1.key }) {
                self.name(name)
                self.value(element)
            }
            end()
        }
        needsComma = true
    }

    /// A JSON string (RFC 8259, section 7), cut off at the largest size of a text.
    private mutating func string(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        var left = LineLogHandler.maximumText
        for scalar in text.unicodeScalars {
            left -= UTF8.width(scalar)
            if left < 0 {
                bytes.append(contentsOf: "…".utf8)
                break
            }
            switch scalar {
            case "\"": bytes.append(contentsOf: #"\""#.utf8)
            case "\\": bytes.append(contentsOf: #"\\"#.utf8)
            case "\n": bytes.append(contentsOf: #"\n"#.utf8)
            case "\r": bytes.append(contentsOf: #"\r"#.utf8)
            case "\t": bytes.append(contentsOf: #"\t"#.utf8)
            case "\u{0}"..."\u{1f}", "\u{7f}", "\u{2028}", "\u{2029}":
                // The last two end a line for some readers although JSON allows them.
                let hex = String(scalar.value, radix: 16)
                bytes.append(contentsOf: "\\u\(String(repeating: "0", count: 4 - hex.count))\(hex)".utf8)
            default:
                bytes.append(contentsOf: UTF8.encode(scalar).unsafelyUnwrapped)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }
}
