import NIOCore

/// Detects a peer that sends nothing, so little that the body would never end, or much less than other peers do.
///
/// Time counts only while bytes are expected: a slow client is not the peer's failure.
///
/// A value type without I/O.
struct ProgressMonitor: Sendable {
    struct Limits: Sendable {
        /// How often the rate is judged.
        var slowWindow: TimeAmount
        /// The time within which ``stallBytes`` must come.
        var stallWindow: TimeAmount
        /// Fewest bytes of a stall window. The end of the body must come within a window in any case.
        var stallBytes: Int64
    }

    enum Verdict: Sendable, Hashable {
        case sufficient
        /// Far less than recent bodies: another peer should take over.
        case slow
        /// Too little to wait for, also if there is no other peer.
        case stalled
    }

    private struct Window {
        var start: NIODeadline
        var bytes: Int64 = 0
    }

    private let limits: Limits
    private var rateWindow: Window
    private var stallWindow: Window
    private var isPaused = false

    init(limits: Limits, now: NIODeadline) {
        self.limits = limits
        rateWindow = Window(start: now)
        stallWindow = rateWindow
    }

    /// When to call ``judge(now:expectedRate:)`` next; nil while paused.
    var deadline: NIODeadline? {
        isPaused ? nil : min(rateWindow.start + limits.slowWindow, stallWindow.start + limits.stallWindow)
    }

    /// Bytes were received.
    mutating func received(_ count: Int) {
        rateWindow.bytes += Int64(count)
        stallWindow.bytes += Int64(count)
    }

    /// No bytes are expected for now.
    mutating func pause() {
        isPaused = true
    }

    /// Bytes are expected again; new windows begin after a pause.
    mutating func resume(now: NIODeadline) {
        guard isPaused else { return }
        isPaused = false
        rateWindow = Window(start: now)
        stallWindow = rateWindow
    }

    /// The rate since the last judgement in bytes per second; nil when it is too short to tell.
    func rate(now: NIODeadline) -> Int64? {
        let elapsed = (now - rateWindow.start).nanoseconds
        guard !isPaused, elapsed > 0, rateWindow.bytes >= 64 * 1024 || elapsed >= limits.slowWindow.nanoseconds else {
            return nil
        }
        return Int64((Double(rateWindow.bytes) * 1_000_000_000 / Double(elapsed)).rounded(.down))
    }

    /// Judges the windows that are over, and begins new ones.
    ///
    /// - Parameter expectedRate: bytes per second below which the peer is slow.
    mutating func judge(now: NIODeadline, expectedRate: Int64) -> Verdict {
        guard !isPaused else { return .sufficient }
        if now >= stallWindow.start + limits.stallWindow {
            if stallWindow.bytes < max(limits.stallBytes, 1) { return .stalled }
            stallWindow = Window(start: now)
        }
        guard now >= rateWindow.start + limits.slowWindow, let rate = rate(now: now) else { return .sufficient }
        rateWindow = Window(start: now)
        return rate < expectedRate ? .slow : .sufficient
    }
}

/// The rates at which recent bodies were received, and what can be expected of the next.
///
/// A value type without I/O.
struct ThroughputEstimator: Sendable {
    /// Samples kept; the oldest is replaced.
    static let capacity = 64
    /// Age at which a sample no longer counts.
    static let longestAge: TimeAmount = .seconds(60)
    /// Fewest samples from which more than ``expectedRates``' lower bound is expected.
    static let fewestSamples = 4
    /// A peer is slow below this fraction of the median of recent rates,
    static let fraction = 8
    /// but at least, and at most, at these bytes per second, whatever was recorded: a body that gets a peer's full disk or
    /// network is not hedged, and no history makes a trickle acceptable.
    static let expectedRates: ClosedRange<Int64> = (64 * 1024)...(4 * 1024 * 1024)

    private var samples: [(rate: Int64, taken: NIODeadline)] = []
    private var next = 0

    /// Records the rate of a body in bytes per second.
    mutating func record(_ rate: Int64, now: NIODeadline) {
        if samples.count < Self.capacity {
            samples.append((rate, now))
        } else {
            samples[next] = (rate, now)
        }
        next = (next + 1) % Self.capacity
    }

    /// Bytes per second below which a peer is slow.
    func expectedRate(now: NIODeadline) -> Int64 {
        let rates = samples.filter { now - $0.taken < Self.longestAge }.map(\.rate).sorted()
        guard rates.count >= Self.fewestSamples else { return Self.expectedRates.lowerBound }
        let rate = rates[rates.count / 2] / Int64(Self.fraction)
        return min(max(rate, Self.expectedRates.lowerBound), Self.expectedRates.upperBound)
    }
}
