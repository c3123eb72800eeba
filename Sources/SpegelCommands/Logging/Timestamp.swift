#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A point in time as RFC 3339 writes it in UTC, with nanoseconds: `2025-01-01T00:00:00.000000000Z`.
struct Timestamp: CustomStringConvertible, Equatable, Sendable {
    /// Seconds since 1970-01-01T00:00:00Z; not negative.
    var seconds: Int64
    /// From 0 to 999,999,999.
    var nanoseconds: Int64

    /// The system's clock.
    static var now: Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(seconds: max(0, Int64(time.tv_sec)), nanoseconds: Int64(time.tv_nsec))
    }

    var description: String {
        let (year, month, day) = date
        let second = seconds % 86400
        return "\(Self.digits(year, 4))-\(Self.digits(month, 2))-\(Self.digits(day, 2))T"
            + "\(Self.digits(second / 3600, 2)):\(Self.digits(second / 60 % 60, 2)):\(Self.digits(second % 60, 2))."
            + "\(Self.digits(nanoseconds, 9))Z"
    }

    /// The date in the Gregorian calendar, counted in years that begin in March so that leap days come last.
    private var date: (year: Int64, month: Int64, day: Int64) {
        let days = seconds / 86400 + 719_468
        let era = days / 146_097
        let dayOfEra = days % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shifted + 2) / 5 + 1)
    }

    private static func digits(_ value: Int64, _ width: Int) -> String {
        let text = String(value)
        return String(repeating: "0", count: max(0, width - text.count)) + text
    }
}
