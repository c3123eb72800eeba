/// Reads durations such as `20ms`, `1.5s`, `2m` or `1h30m`.
enum DurationOption {
    /// Units and their length in nanoseconds, longest spelling first where one is a prefix of another.
    private static let units: [(name: String, nanoseconds: Int64)] = [
        ("ns", 1), ("us", 1000), ("µs", 1000), ("μs", 1000), ("ms", 1_000_000), ("s", 1_000_000_000),
        ("m", 60_000_000_000), ("h", 3_600_000_000_000),
    ]

    /// Reads a positive duration of at most 24 hours.
    ///
    /// - Throws: ``OptionError`` with what is allowed.
    static func positive(_ text: String) throws -> Duration {
        guard let duration = parse(text), duration > .zero, duration <= .seconds(24 * 3600) else {
            throw OptionError("a duration above zero and up to 24h, such as 20ms, 1.5s, 2m or 1h30m")
        }
        return duration
    }

    /// Reads a sequence of decimal numbers with units, or nil when the text is anything else or too large.
    static func parse(_ text: String) -> Duration? {
        guard !text.isEmpty else { return nil }
        if text == "0" { return .zero }
        var rest = text[...]
        var total: Int64 = 0
        while !rest.isEmpty {
            let whole = rest.prefix { $0.isASCII && $0.isNumber }
            rest = rest.dropFirst(whole.count)
            var fraction: Substring = ""
            if rest.first == "." {
                rest = rest.dropFirst()
                fraction = rest.prefix { $0.isASCII && $0.isNumber }
                rest = rest.dropFirst(fraction.count)
            }
            guard !(whole.isEmpty && fraction.isEmpty) else { return nil }
            let name = rest.prefix { !($0.isASCII && $0.isNumber) && $0 != "." }
            rest = rest.dropFirst(name.count)
            guard let unit = units.first(where: { $0.name == name })?.nanoseconds,
                let part = nanoseconds(whole: whole, fraction: fraction, unit: unit)
            else { return nil }
            let (sum, overflow) = total.addingReportingOverflow(part)
            guard !overflow else { return nil }
            total = sum
        }
        return .nanoseconds(total)
    }

    private static func nanoseconds(whole: Substring, fraction: Substring, unit: Int64) -> Int64? {
        guard let number = whole.isEmpty ? 0 : Int64(whole) else { return nil }
        let (large, overflow) = number.multipliedReportingOverflow(by: unit)
        guard !overflow else { return nil }
        // Digits beyond a nanosecond do not count.
        var scale = unit
        var small: Int64 = 0
        for digit in fraction {
            scale /= 10
            guard scale > 0, let value = digit.wholeNumberValue else { break }
            small += Int64(value) * scale
        }
        let (sum, carry) = large.addingReportingOverflow(small)
        return carry ? nil : sum
    }
}
