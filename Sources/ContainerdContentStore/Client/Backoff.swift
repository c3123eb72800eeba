#if Containerd
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
#endif
