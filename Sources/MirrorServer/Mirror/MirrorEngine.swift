import ContentStore
import HTTPServer
import Logging
import Metrics
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import OCIDistribution
import PeerRoutingCore
import ServiceLifecycle
import Synchronization

/// Answers requests for content that is not in the local store with the content of peers.
///
/// It looks up the providers of the content, sends requests to them in a race, relays the winner's body while verifying
/// it, and resumes an interrupted body from another peer. A client receives one correct body, a `404`, or a connection that
/// closes before the body is complete; never a complete body that is wrong.
///
/// ``MirrorNode`` puts it behind a ``RegistryServer``, which has to be shut down first. Keeps the contract of `Lifecycle`;
/// it answers as soon as it is created.
package final class MirrorEngine: MissHandler, Service {
    private let context: MirrorContext
    private let share: Int
    private let lifecycle = Lifecycle(name: "mirror engine")
    private let store: (any ContentStore)?
    /// Follows the manifests of the store.
    private let follower = Mutex<Task<Void, Never>?>(nil)
    /// Nil once the engine was shut down.
    private let loops = Mutex<[ObjectIdentifier: NIOLoopBound<MirrorLoop>]?>([:])

    /// Creates an engine.
    ///
    /// - Parameters:
    ///   - configuration: the limits. Values out of range are replaced by the nearest ones within.
    ///   - router: finds peers.
    ///   - store: the local store, whose manifests tell the sizes of content; nil for none.
    ///   - eventLoopGroup: the event loops of the server's connections; nil for those of the process.
    ///   - routerName: the value of the `router` label of the lookup times.
    ///   - metricsFactory: receives the metrics; nil for that of `MetricsSystem`.
    ///   - logger: for peers that misbehave.
    package convenience init(
        configuration: MirrorConfiguration, router: any PeerRouter, store: (any ContentStore)? = nil,
        eventLoopGroup: (any EventLoopGroup)? = nil, routerName: String = "libp2p",
        metricsFactory: (any MetricsFactory)? = nil, logger: Logger
    ) {
        self.init(
            configuration: configuration, router: router, store: store, eventLoopGroup: eventLoopGroup,
            metrics: MirrorMetrics(factory: metricsFactory ?? MetricsSystem.factory, router: routerName),
            logger: logger)
    }

    /// - Parameter coldStart: claims content that no peer has; nil to claim nothing.
    init(
        configuration: MirrorConfiguration, router: any PeerRouter, store: (any ContentStore)?,
        coldStart: ColdStart? = nil, eventLoopGroup: (any EventLoopGroup)?, metrics: MirrorMetrics, logger: Logger
    ) {
        let configuration = configuration.clamped()
        let eventLoops = Array((eventLoopGroup ?? MultiThreadedEventLoopGroup.singleton).makeIterator())
        context = MirrorContext(
            configuration: configuration, router: router,
            hashing: HashingThreadPool(threads: configuration.hashingThreads ?? min(4, System.coreCount)),
            metrics: metrics, coldStart: coldStart, logger: logger)
        share = max(1, eventLoops.count)
        self.store = store
    }

    /// Answers a request for content that is not in the local store; see ``MissHandler``.
    package func handleMiss(_ request: MissRequest, response: any ResponseWriter) {
        let eventLoop = response.eventLoop
        let loop = loops.withLock { loops -> NIOLoopBound<MirrorLoop>? in
            let key = ObjectIdentifier(eventLoop)
            if let loop = loops?[key] { return loop }
            guard loops != nil else { return nil }
            let loop = NIOLoopBound(makeLoop(eventLoop), eventLoop: eventLoop)
            loops?[key] = loop
            return loop
        }
        guard let loop else {
            return response.send(DistributionError(.unavailable, message: "the mirror was shut down"))
        }
        guard context.admit() else {
            return response.send(
                DistributionError(.tooManyRequests, message: "too many transfers are running"),
                fields: [("Retry-After", "1")])
        }
        let client = ClientGroup.Client(request: request, writer: response, arrivedAt: .now())
        let key = MirrorLoop.CoalescingKey(request)
        if let key, let transfer = loop.value.transfer(for: key), transfer.clients.join(client) { return }
        MirrorTransfer(client, loop: loop.value, context: context).start(coalescingAs: key)
    }

    private func makeLoop(_ eventLoop: any EventLoop) -> MirrorLoop {
        let router = context.router
        let timers = EventLoopTimers(eventLoop: eventLoop)
        let pool = PeerPool(
            eventLoop: eventLoop, configuration: context.configuration.peers, share: share,
            directory: context.directory, memory: context.memory,
            makeClock: { [context] in context.makeClock(timers) },
            onUnreachable: { router.reportUnreachable($0) })
        pool.dialTimer = context.metrics.dial
        return MirrorLoop(timers: timers, pool: pool)
    }

    /// Marks the engine as started; see ``Lifecycle``.
    package func start() async throws {
        try await lifecycle.start {
            guard let store else { return }
            let task = Task { [context] in await context.sizes.follow(store) }
            follower.withLock { $0 = task }
        }
    }

    /// Waits for the graceful shutdown of its service group, and shuts down.
    package func run() async throws {
        try await lifecycle.run {
            try await start()
        } shutdown: { _ in
            await shutdown()
        }
    }

    /// Closes the connections to peers. Requests under way fail; call it after the server was shut down.
    package func shutdown() async {
        await lifecycle.end {
            let task = self.follower.withLock { $0 }
            task?.cancel()
            await task?.value
        }
        let loops = loops.withLock { loops in
            defer { loops = nil }
            return loops.map { Array($0.values) } ?? []
        }
        for loop in loops {
            // The loop may have ended before; then its connections have, too.
            try? await loop.eventLoop.submit { loop.value.pool.close() }.get()
        }
    }

    /// The counts of the engine, for status pages.
    package struct Summary: Sendable, Hashable {
        /// Requests answered with the content of a peer.
        package var hits: Int
        /// Requests answered without.
        package var misses: Int
        /// When the last hit was, in seconds since 1970; nil for never.
        package var lastSuccess: Double?
    }

    /// Requests of clients under way.
    var requestsUnderWay: Int { context.requestsUnderWay }

    /// The counts up to now.
    package var summary: Summary {
        let summary = context.metrics.summary
        return Summary(
            hits: summary.hits, misses: summary.misses, lastSuccess: summary.lastSuccess > 0 ? summary.lastSuccess : nil
        )
    }
}

/// What all requests of an engine share.
final class MirrorContext: Sendable {
    let configuration: MirrorConfiguration
    let router: any PeerRouter
    let lookup: ProviderLookup
    let directory = PeerDirectory()
    let sizes = ContentSizes()
    let memory: TransferMemory
    let hashing: HashingThreadPool
    let metrics: MirrorMetrics
    let logger: Logger
    let authorization: String?
    /// Nil when nothing is claimed.
    let coldStart: ColdStart?
    private let stalls = StallMonitor()
    private let requests = Atomic<Int>(0)

    init(
        configuration: MirrorConfiguration, router: any PeerRouter, hashing: HashingThreadPool, metrics: MirrorMetrics,
        coldStart: ColdStart? = nil, logger: Logger
    ) {
        self.coldStart = coldStart
        self.configuration = configuration
        self.router = router
        self.hashing = hashing
        self.metrics = metrics
        self.logger = logger
        authorization = configuration.peers.credentials?.authorization
        lookup = ProviderLookup(router: router)
        memory = TransferMemory(
            streamingBytes: configuration.streamingBytes, bufferedBytes: configuration.bufferedBytes,
            chunk: configuration.peers.receiveBytes)
    }

    /// Requests that were admitted and have not ended.
    var requestsUnderWay: Int { requests.load(ordering: .relaxed) }

    /// Whether one more request may be under way; ``requestEnded()`` is called at its end.
    func admit() -> Bool {
        guard requests.add(1, ordering: .relaxed).newValue <= configuration.concurrentTransfers else {
            requestEnded()
            return false
        }
        return true
    }

    /// A request that was admitted has ended.
    func requestEnded() { requests.subtract(1, ordering: .relaxed) }

    /// A clock for a request or dial that starts now on the event loop of these timers.
    func makeClock(_ timers: EventLoopTimers) -> StallAdjustedClock {
        StallAdjustedClock(stalls, timers: timers, allowance: TimeAmount(configuration.stallAllowance))
    }
}
