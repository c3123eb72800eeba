/// Figures of status pages in words.
package enum DebugText {
    /// A number of bytes, such as `512 B`, `1.5 KiB` or `200.0 MiB`.
    package static func bytes(_ count: Int64) -> String {
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        guard count >= 1024 else { return "\(count) B" }
        var value = Double(count) / 1024
        var unit = 0
        while value >= 1023.95, unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        let tenths = Int64((value * 10).rounded())
        return "\(tenths / 10).\(tenths % 10) \(units[unit])"
    }

    /// A time of day of UTC, such as `14:05:09`.
    package static func time(_ secondsSince1970: Double) -> String {
        let second = Int(secondsSince1970.rounded(.down)) % 86_400
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(two(second / 3600)):\(two(second / 60 % 60)):\(two(second % 60))"
    }

    /// A time such as `45 s`, `12 min`, `5 h 3 min` or `3 d 4 h`.
    package static func duration(_ seconds: Double) -> String {
        let seconds = Int(max(0, min(seconds, 1e12)))
        switch seconds {
        case ..<120: return "\(seconds) s"
        case ..<7200: return "\(seconds / 60) min"
        case ..<172_800: return "\(seconds / 3600) h \(seconds / 60 % 60) min"
        default: return "\(seconds / 86_400) d \(seconds / 3600 % 24) h"
        }
    }

    /// A share in percent, such as `62 %`; `–` of nothing.
    package static func share(_ part: Int, of whole: Int) -> String {
        whole > 0 ? "\(Int((Double(part) / Double(whole) * 100).rounded())) %" : "–"
    }

    /// What a reason of a miss means.
    package static func missReason(_ name: String) -> String {
        switch MissReason(rawValue: name) {
        case .absent: "no peer has it"
        case .unreachable: "providers not reachable"
        case .timeout: "no peer in time"
        case .refused: "peers refused"
        case .filtered: "forbidden by a filter"
        case .mismatch: "wrong bytes"
        case .interrupted: "broken off"
        case nil: name
        }
    }
}
