#if Containerd
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
#endif
