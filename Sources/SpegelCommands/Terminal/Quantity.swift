/// Sizes and times in a form for people.
package enum Quantity {
    /// A number of bytes, such as `512 B`, `1.5 KiB` or `200.0 MiB`.
    package static func bytes(_ count: Int64) -> String {
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        guard count >= 1024 else { return "\(count) B" }
        var value = Double(count) / 1024
        var unit = 0
        // Where rounding would show 1024.0, the next unit is meant.
        while value >= 1023.95, unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        return "\(decimal(value, 1)) \(units[unit])"
    }

    /// A time, such as `0.8 ms`, `12 ms`, `3.4 s` or `2 min 5 s`.
    package static func time(_ duration: Duration) -> String {
        let seconds = max(0, duration / .seconds(1))
        if seconds < 0.01 { return "\(decimal(seconds * 1000, 1)) ms" }
        if seconds < 1 { return "\(Int((seconds * 1000).rounded())) ms" }
        if seconds < 60 { return "\(decimal(seconds, 1)) s" }
        let whole = Int(seconds.rounded())
        return "\(whole / 60) min \(whole % 60) s"
    }

    /// Bytes a second, such as `1.2 GiB/s`.
    static func rate(_ count: Int64, in duration: Duration) -> String {
        let seconds = duration / .seconds(1)
        guard seconds > 0 else { return "-" }
        return bytes(Int64(min(Double(count) / seconds, 1e18))) + "/s"
    }

    /// A number with so many digits after the point.
    static func decimal(_ value: Double, _ digits: Int) -> String {
        let scale = (0..<digits).reduce(1.0) { scale, _ in scale * 10 }
        let scaled = Int64((value * scale).rounded())
        guard digits > 0 else { return String(scaled) }
        let fraction = String(scaled % Int64(scale))
        return "\(scaled / Int64(scale)).\(String(repeating: "0", count: digits - fraction.count))\(fraction)"
    }
}
