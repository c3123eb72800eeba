/// Writes metrics in a text form: the Prometheus exposition format 0.0.4 or OpenMetrics 1.0.
package struct PrometheusText {
    /// The form that is written.
    package enum Format: Sendable {
        case prometheus, openMetrics

        /// The `Content-Type` of it.
        package var contentType: String {
            switch self {
            case .prometheus: "text/plain; version=0.0.4; charset=utf-8"
            case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
        }
    }

    let format: Format
    private(set) var bytes: [UInt8] = []

    init(format: Format) { self.format = format }

    /// `# HELP` and `# TYPE`. The family of a counter has the name of its sample in Prometheus' form, and in OpenMetrics the
    /// name without `_total`.
    mutating func family(_ name: String, type: String, help: String) {
        var name = name
        if format == .openMetrics, type == "counter", name.hasSuffix("_total") { name.removeLast(6) }
        bytes += "# HELP \(name) ".utf8
        // Backslashes and line feeds are escaped in help texts, quotes in OpenMetrics only.
        for byte in help.utf8 {
            switch byte {
            case 0x5c: bytes += #"\\"#.utf8
            case 0x22 where format == .openMetrics: bytes += #"\""#.utf8
            case 0x0a: bytes += #"\n"#.utf8
            default: bytes.append(byte)
            }
        }
        bytes += "\n# TYPE \(name) \(type)\n".utf8
    }

    /// One sample. `extra` is a label that comes after the others, such as `le`.
    mutating func sample(
        _ name: String, labels: [(String, String)], extra: (String, String)? = nil, value: String
    ) {
        bytes += name.utf8
        var labels = labels
        if let extra { labels.append(extra) }
        if !labels.isEmpty {
            bytes.append(0x7b)
            for (index, (label, text)) in labels.enumerated() {
                if index > 0 { bytes.append(0x2c) }
                bytes += label.utf8
                bytes += "=\"".utf8
                for byte in text.utf8 {
                    switch byte {
                    case 0x5c: bytes += #"\\"#.utf8
                    case 0x22: bytes += #"\""#.utf8
                    case 0x0a: bytes += #"\n"#.utf8
                    default: bytes.append(byte)
                    }
                }
                bytes.append(0x22)
            }
            bytes.append(0x7d)
        }
        bytes.append(0x20)
        bytes += value.utf8
        bytes.append(0x0a)
    }

    /// Ends the page.
    mutating func finish() {
        if format == .openMetrics { bytes += "# EOF\n".utf8 }
    }

    /// The bound of a bucket: OpenMetrics wants a point in each.
    func bound(_ value: Double) -> String {
        let text = Self.number(value)
        return format == .openMetrics && text.allSatisfy({ $0.isNumber || $0 == "-" }) ? text + ".0" : text
    }

    /// A number in the format's form: integers without a point, the others in the shortest exact form.
    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if value == value.rounded(), abs(value) < 1e15 { return String(Int64(value)) }
        return "\(value)"
    }

    /// A metric name (`[a-zA-Z_:][a-zA-Z0-9_:]*`) from any text.
    static func metricName(_ text: String) -> String { name(text, allowing: 0x3a) }

    /// A label name (`[a-zA-Z_][a-zA-Z0-9_]*`, not beginning with two underscores) from any text.
    static func labelName(_ text: String) -> String {
        let name = name(text, allowing: nil)
        return name.hasPrefix("__") ? "x" + name : name
    }

    private static func name(_ text: String, allowing extra: UInt8?) -> String {
        var bytes: [UInt8] = []
        for byte in text.utf8 {
            let isLetter = byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7a
            let isDigit = byte >= 0x30 && byte <= 0x39
            if isDigit, bytes.isEmpty { bytes.append(0x5f) }
            bytes.append(isLetter || isDigit || byte == extra ? byte : 0x5f)
        }
        return bytes.isEmpty ? "_" : String(decoding: bytes, as: UTF8.self)
    }
}
