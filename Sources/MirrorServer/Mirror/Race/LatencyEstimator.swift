import NIOCore

/// Estimates the time to first byte of a healthy peer from recent samples.
///
/// Responses, failures and timeouts all count, each with the time that passed, so that the estimate follows a cluster that
/// becomes slow. No history can prevent hedging: samples are capped, expire, and ``hedgeDelay(concurrent:now:)`` stays
/// within fixed limits whatever was recorded.
struct LatencyEstimator: Sendable {
    /// The delay while there are too few samples for a quantile.
    static let delayWithoutHistory: TimeAmount = .milliseconds(50)
    /// The shortest delay, so that a very fast cluster does not ask every peer for everything.
    static let shortestDelay: TimeAmount = .milliseconds(1)
    /// The longest delay, and the most a single sample counts.
    static let longestDelay: TimeAmount = .milliseconds(500)
    /// Samples kept; the oldest is replaced.
    static let capacity = 256
    /// Fewest samples from which a quantile is taken.
    static let fewestSamples = 8
    /// Age at which a sample no longer counts.
    static let longestAge: TimeAmount = .seconds(300)
    /// The quantiles of past times at which the second, third and every further attempt starts.
    static let quantiles: [Double] = [0.80, 0.85, 0.90]

    private struct Sample {
        var nanoseconds: Int64
        var taken: NIODeadline
    }

    private var samples: [Sample] = []
    private var next = 0
    /// The delays computed last. They are recomputed after every 16 samples or a second, so that a request costs no sort.
    private var delays: [TimeAmount] = []
    private var recordedSince = 0
    private var computed: NIODeadline?

    /// Records the time from the start of an attempt to its first byte, its failure, or its timeout.
    mutating func record(_ duration: TimeAmount, now: NIODeadline) {
        let capped = min(max(duration.nanoseconds, 0), Self.longestDelay.nanoseconds)
        let sample = Sample(nanoseconds: capped, taken: now)
        if samples.count < Self.capacity {
            samples.append(sample)
        } else {
            samples[next] = sample
        }
        next = (next + 1) % Self.capacity
        recordedSince += 1
    }

    /// How long to wait for `concurrent` attempts under way before another one is started.
    mutating func hedgeDelay(concurrent: Int, now: NIODeadline) -> TimeAmount {
        let stale = computed.map { now - $0 >= .seconds(1) } ?? true
        if stale || recordedSince >= 16 || (delays.isEmpty && recordedSince > 0) {
            computeDelays(now: now)
        }
        guard !delays.isEmpty else { return Self.delayWithoutHistory }
        return delays[min(max(concurrent, 1), delays.count) - 1]
    }

    /// The time below which the fraction `quantile` of the samples lies; nil while there are too few.
    func quantile(_ quantile: Double, now: NIODeadline) -> TimeAmount? {
        Self.quantile(quantile, of: current(now: now))
    }

    private mutating func computeDelays(now: NIODeadline) {
        computed = now
        recordedSince = 0
        let sorted = current(now: now)
        delays = Self.quantiles.compactMap { quantile in
            Self.quantile(quantile, of: sorted).map { min(max($0, Self.shortestDelay), Self.longestDelay) }
        }
    }

    private func current(now: NIODeadline) -> [Int64] {
        samples.filter { now - $0.taken < Self.longestAge }.map(\.nanoseconds).sorted()
    }

    /// The nearest-rank quantile.
    private static func quantile(_ quantile: Double, of sorted: [Int64]) -> TimeAmount? {
        guard sorted.count >= fewestSamples else { return nil }
        let rank = (quantile * Double(sorted.count)).rounded(.up)
        let index = min(max(Int(rank) - 1, 0), sorted.count - 1)
        return .nanoseconds(sorted[index])
    }
}
