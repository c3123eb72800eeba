import Logging
import NIOCore
import PeerRoutingCore
import Synchronization

/// What all requests of an engine share.
final class MirrorContext: Sendable {
    let configuration: MirrorConfiguration
    let router: any PeerRouter
    let finder: PeerFinder
    let directory = PeerDirectory()
    let memory: TransferMemory
    let hashing: HashPool
    let metrics: MirrorMetrics
    let logger: Logger
    let authorization: String?
    private let clock = ResponsiveClock()
    private let requests = Atomic<Int>(0)

    init(
        configuration: MirrorConfiguration, router: any PeerRouter, hashing: HashPool, metrics: MirrorMetrics,
        logger: Logger
    ) {
        self.configuration = configuration
        self.router = router
        self.hashing = hashing
        self.metrics = metrics
        self.logger = logger
        authorization = configuration.peers.credentials?.authorization
        finder = PeerFinder(router: router)
        memory = TransferMemory(
            streamingBytes: configuration.streamingBytes, heldBytes: configuration.heldBytes,
            chunk: configuration.peers.receiveBytes)
    }

    /// Requests that were admitted and have not ended.
    var requestsUnderWay: Int { requests.load(ordering: .relaxed) }

    /// Whether one more request may be under way; then ``leave()`` is called at its end.
    func admit() -> Bool {
        guard requests.add(1, ordering: .relaxed).newValue <= configuration.concurrentTransfers else {
            leave()
            return false
        }
        return true
    }

    /// A request that was admitted has ended.
    func leave() { requests.subtract(1, ordering: .relaxed) }

    /// A clock for something that begins now on this event loop.
    func makeClock(on eventLoop: any EventLoop) -> RequestClock {
        RequestClock(clock, on: eventLoop, allowance: TimeAmount(configuration.lagAllowance))
    }
}
