import NIOCore
import OCIDistribution

/// What all requests of one event loop share. Confined to it.
final class MirrorLoop {
    let eventLoop: any EventLoop
    let pool: PeerPool
    var latency = LatencyEstimator()
    var throughput = ThroughputEstimator()
    var manifestTypes = ManifestTypeCache()
    /// Transfers that further clients can join until the response has begun: at most as many as requests under way.
    private var coalescing: [CoalescingKey: MirrorTransfer] = [:]

    init(eventLoop: any EventLoop, pool: PeerPool) {
        self.eventLoop = eventLoop
        self.pool = pool
    }

    /// What two requests must have in common to be served by one transfer.
    private struct CoalescingKey: Hashable {
        var distribution: DistributionRequest
        var isHead: Bool

        /// Nil for a range or conditional request, which gets a transfer of its own.
        init?(_ request: MissRequest) {
            guard request.range == nil, request.head.fields["if-none-match"] == nil else { return nil }
            distribution = request.distribution
            isHead = request.isHead
        }
    }

    /// The transfer that a request can join.
    func transfer(for request: MissRequest) -> MirrorTransfer? {
        CoalescingKey(request).flatMap { coalescing[$0] }
    }

    /// Lets further clients join a transfer, unless they can join another one already.
    func startCoalescing(_ transfer: MirrorTransfer) {
        guard let key = CoalescingKey(transfer.request), coalescing[key] == nil else { return }
        coalescing[key] = transfer
    }

    /// No further client joins the transfer.
    func stopCoalescing(_ transfer: MirrorTransfer) {
        guard let key = CoalescingKey(transfer.request), coalescing[key] === transfer else { return }
        coalescing[key] = nil
    }
}
