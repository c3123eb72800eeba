import NIOCore
import OCIDistribution

/// What all requests of one event loop share. Confined to it.
final class MirrorLoop {
    let timers: EventLoopTimers
    let pool: PeerPool
    var latency = LatencyEstimator()
    var throughput = ThroughputEstimator()
    var manifestTypes = ManifestTypeCache()
    /// Transfers that further clients can join until the response has begun: at most as many as requests under way.
    private var coalescing: [CoalescingKey: MirrorTransfer] = [:]

    init(timers: EventLoopTimers, pool: PeerPool) {
        self.timers = timers
        self.pool = pool
    }

    var eventLoop: any EventLoop { timers.eventLoop }

    /// What two requests must have in common to be served by one transfer.
    struct CoalescingKey: Hashable {
        private let distribution: DistributionRequest
        private let isHead: Bool
        /// Computed once: each request looks it up several times.
        private let hash: Int

        /// Nil for a range or conditional request, which gets a transfer of its own.
        init?(_ request: MissRequest) {
            guard request.range == nil, request.head.fields["if-none-match"] == nil else { return nil }
            distribution = request.distribution
            isHead = request.isHead
            hash = distribution.hashValue
        }

        func hash(into hasher: inout Hasher) { hasher.combine(hash) }
    }

    /// The transfer that a request can join.
    func transfer(for key: CoalescingKey) -> MirrorTransfer? { coalescing[key] }

    /// Lets further clients join a transfer, unless they can join another one already.
    ///
    /// - Returns: whether they can join this one.
    func startCoalescing(_ transfer: MirrorTransfer, _ key: CoalescingKey) -> Bool {
        guard coalescing[key] == nil else { return false }
        coalescing[key] = transfer
        return true
    }

    /// No further client joins the transfer that ``startCoalescing(_:_:)`` took for this key.
    func stopCoalescing(_ key: CoalescingKey) { coalescing[key] = nil }
}
