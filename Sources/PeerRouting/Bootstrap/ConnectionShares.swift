import ResourceLimits
import Synchronization

/// Counts the connections of a server, in all and of each source, up to its limits.
final class ConnectionShares: Sendable {
    private struct Counts {
        var all = 0
        var bySource = SourceCounts<IPAddress>()
    }

    private let limit: Int
    private let limitPerSource: Int
    private let counts = Mutex(Counts())

    init(limit: Int, limitPerSource: Int) {
        self.limit = limit
        self.limitPerSource = limitPerSource
    }

    /// Counts a connection; false when there may be no more.
    ///
    /// - Parameter source: Where it comes from; nil for one whose share is not limited.
    func take(_ source: IPAddress?) -> Bool {
        counts.withLock { counts in
            guard counts.all < limit, counts.bySource[source] < limitPerSource else { return false }
            counts.bySource.add(source)
            counts.all += 1
            return true
        }
    }

    /// A connection that was counted has ended.
    func giveBack(_ source: IPAddress?) {
        counts.withLock { counts in
            counts.all -= 1
            counts.bySource.remove(source)
        }
    }
}
