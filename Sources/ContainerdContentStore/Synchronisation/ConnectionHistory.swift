/// What follows from how the connections so far ended: how long to wait before the next, and what is worth saying.
struct ConnectionHistory: Sendable {
    private var backoff: Backoff
    private var lastReason: String?
    /// Whether the last connection was made, but ended before everything was listed: the next is likely to do the same.
    private(set) var isStuck = false

    init(initialBackoff: Duration, maximumBackoff: Duration) {
        backoff = Backoff(initial: initialBackoff, limit: maximumBackoff)
    }

    /// Takes note of the end of a connection, or of an attempt to make one.
    ///
    /// - Parameters:
    ///   - wasConnected: whether containerd was reached.
    ///   - wasOfUse: whether everything was listed. Being connected alone is no success: where every listing fails, as
    ///     with a namespace that containerd refuses, attempts would follow each other without a pause.
    /// - Returns: whether it is to be logged at large, and how long to wait.
    mutating func ended(
        reason: String, wasConnected: Bool, wasOfUse: Bool, using generator: inout some RandomNumberGenerator
    ) -> (isNews: Bool, wait: Duration) {
        if wasOfUse {
            backoff.reset()
            lastReason = nil
        }
        defer { lastReason = reason }
        isStuck = wasConnected && !wasOfUse
        return (lastReason != reason, backoff.next(using: &generator))
    }
}

/// How long to wait before the next attempt: longer after each failure, up to a limit, with jitter, so that the daemons
/// of many nodes do not act in step.
struct Backoff: Sendable {
    let initial: Duration
    let limit: Duration
    private var failures = 0

    init(initial: Duration, limit: Duration) {
        self.initial = initial
        self.limit = limit
    }

    /// Counts a failure.
    ///
    /// - Returns: between half and all of `initial * 2^failures`, at most `limit`.
    mutating func next(using generator: inout some RandomNumberGenerator) -> Duration {
        let full = min(limit, initial * (1 << min(failures, 16)))
        failures += 1
        return full * Double.random(in: 0.5...1, using: &generator)
    }

    /// Forgets the failures.
    mutating func reset() { failures = 0 }
}
