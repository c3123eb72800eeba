import ContentStore
import HTTPServer
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import PeerRoutingCore
import PrometheusMetrics
import ResourceLimits
import ServiceLifecycle

/// A node of a cluster: serves its own content, fetches from peers what it does not have, and advertises what it has.
///
/// ```swift
/// let node = try MirrorNode(.init(store: store, router: router, logger: logger))
/// try await ServiceGroup(services: [node], gracefulShutdownSignals: [.sigterm], logger: logger).run()
/// ```
///
/// ``start()`` returns when the node listens, ``run()`` starts it if need be and shuts it down with its service group,
/// ``shutdown()`` may be called at any time and any number of times. A node that was started does not start twice, and one
/// that was shut down does not start again: `LifecycleError`. Make a new one from the same configuration; a store or
/// router that the node manages has ended with it.
///
/// Parts start so that each finds what it needs: store, router, registry, admin server, advertiser. They end in another
/// order: the advertiser, the router (which takes leave of its peers), the registry (which lets running responses finish),
/// the connections to peers, the admin server, and last the store.
public final class MirrorNode: Service, Sendable {
    private let configuration: Configuration
    private let registry: RegistryServer
    private let requestLog: RequestLog
    /// Counts what is exchanged with peers and saved from the upstream.
    package let traffic: TrafficLedger
    private let trafficFile: TrafficFile?
    private let engine: MirrorEngine?
    private let coldStart: ColdStart?
    private let measurement: PullMeasurement?
    private let storedImages: StoredImageList
    private let advertiser: Advertiser?
    private let storeEvents: StoreEventTask?
    private let storeService: ServiceTask?
    private let lifecycle = Lifecycle(name: "node")
    private let failure = NIOLockedValueBox<(any Error)?>(nil)
    private let descriptorWatch = NIOLockedValueBox<RepeatedTask?>(nil)
    private let admin = NIOLockedValueBox<AdminServer?>(nil)
    /// How long a page is shown to others, too.
    private static let pageAge = TimeAmount.seconds(1)
    private let madePage = NIOLockedValueBox<(page: ByteBuffer, time: NIODeadline)?>(nil)

    /// A node that is not started yet.
    ///
    /// - Throws: ``ConfigurationError``.
    public init(_ configuration: Configuration) throws(ConfigurationError) {
        guard let address = configuration.registryAddresses.first else { throw .noRegistryAddress }
        self.configuration = configuration
        let (store, router, logger) = (configuration.store, configuration.router, configuration.logger)
        // The connections to peers live on the event loops of the clients' connections.
        let eventLoopGroup = configuration.eventLoopGroup ?? MultiThreadedEventLoopGroup.singleton
        trafficFile = configuration.dataDirectory.map { TrafficFile(directory: $0, logger: logger) }
        traffic = TrafficLedger(kept: trafficFile?.read())
        let registries = RegistryLabels()
        registries.addKnown(configuration.filter.registryNames + [configuration.defaultRegistry].compactMap { $0 })
        let metrics = MirrorMetrics(
            factory: configuration.metrics, router: "libp2p", registries: registries, traffic: traffic)
        if let router {
            let port = configuration.peerPort ?? address.port
            guard port != 0 else { throw .noPeerPort }
            var mirror = configuration.mirror
            mirror.peers.port = Int(port)
            mirror.peers.credentials = configuration.credentials
            coldStart = mirror.coldStart.map {
                ColdStart(
                    configuration: $0, router: router, store: store,
                    metrics: ColdStartMetrics(factory: configuration.metrics), logger: logger)
            }
            engine = MirrorEngine(
                configuration: mirror, router: router, store: store, coldStart: coldStart,
                eventLoopGroup: eventLoopGroup, metrics: metrics, logger: logger)
            measurement = PullMeasurement(
                configuration: mirror, router: router, eventLoopGroup: eventLoopGroup, logger: logger)
            advertiser = Advertiser(
                configuration: configuration.advertiser, store: store, router: router, filter: configuration.filter,
                metricsFactory: configuration.metrics, registries: registries, logger: logger)
            storeEvents = nil
        } else {
            engine = nil
            coldStart = nil
            measurement = nil
            advertiser = nil
            storeEvents = StoreEventTask(store: store, logger: logger)
        }
        storedImages = StoredImageList(store)
        storeService =
            configuration.managesStore ? (store as? any Service).map { ServiceTask($0, logger: logger) } : nil
        var server = RegistryServer.Configuration(
            http: HTTPServerConfiguration(
                listen: configuration.registryAddresses, limits: configuration.limits, eventLoopGroup: eventLoopGroup))
        server.defaultRegistry = configuration.defaultRegistry
        server.filter = configuration.filter
        server.credentials = configuration.credentials
        server.concurrentUploads = configuration.concurrentUploads
        server.metrics = metrics
        server.coldStart = coldStart
        requestLog = RequestLog(HTTPMetrics(factory: configuration.metrics))
        registry = RegistryServer(
            configuration: server, store: store, missHandler: engine,
            observer: requestLog, logger: logger,
            isReady: { Self.problem(configuration) == nil })
        NodeMetrics.register(configuration, coldStart: coldStart)
    }

    // MARK: Lifecycle

    /// Starts everything; returns when the node listens.
    ///
    /// - Throws: ``StartError``, then nothing is left running; `LifecycleError` if the node was started or shut down
    ///   before.
    public func start() async throws {
        try await lifecycle.start {
            do {
                try await startParts()
            } catch {
                await stopParts(gracePeriod: .zero)
                throw error
            }
        }
    }

    /// Shuts everything down in order; returns when nothing of the node is left. Running responses may go on for the
    /// grace period of the configuration's limits.
    public func shutdown() async {
        await lifecycle.end { await self.stopParts(gracePeriod: nil) }
    }

    /// Runs until the service group shuts down gracefully or the task is cancelled (then running responses are cut off).
    /// Starts the node unless it was started.
    ///
    /// - Throws: as ``start()``, and the error that ended a managed store.
    public func run() async throws {
        try await lifecycle.run {
            try await start()
        } shutdown: { isCancelled in
            if isCancelled { await registry.shutdown(gracePeriod: .zero) }
            await shutdown()
        }
        if let failure = failure.withLockedValue({ $0 }) { throw failure }
    }

    private func startParts() async throws {
        let eventLoop = (configuration.eventLoopGroup ?? MultiThreadedEventLoopGroup.singleton).next()
        let watch = DescriptorReserve.process.watch(
            on: eventLoop, limit: OpenFileLimit.current, logger: configuration.logger)
        descriptorWatch.withLockedValue { $0 = watch }
        storeService?.start { [weak self] error in
            guard let self else { return }
            failure.withLockedValue { $0 = error }
            await shutdown()
        }
        if configuration.managesRouter, let router = configuration.router {
            try await part(.router) { try await router.start() }
        }
        try await engine?.start()
        trafficFile?.start(traffic)
        try await part(.registry) { try await registry.start() }
        if let address = configuration.adminAddress {
            let server = AdminServer(
                configuration: HTTPServerConfiguration(
                    listen: [address],
                    eventLoopGroup: configuration.eventLoopGroup ?? MultiThreadedEventLoopGroup.singleton),
                routes: adminRoutes(), logger: configuration.logger)
            admin.withLockedValue { $0 = server }
            try await part(.admin) { try await server.start() }
        }
        try await advertiser?.start()
        storeEvents?.start()
    }

    private func stopParts(gracePeriod: Duration?) async {
        await advertiser?.shutdown()
        // Before the router, so that arbiters hear that the claims have failed.
        await coldStart?.shutdown()
        if configuration.managesRouter { await configuration.router?.shutdown() }
        await registry.shutdown(gracePeriod: gracePeriod)
        await measurement?.shutdown()
        await engine?.shutdown()
        await trafficFile?.shutdown(traffic)
        await admin.withLockedValue { $0 }?.shutdown(gracePeriod: .zero)
        await storeEvents?.shutdown()
        await storeService?.shutdown()
        let watch = descriptorWatch.withLockedValue { watch in
            defer { watch = nil }
            return watch
        }
        if let watch { DescriptorReserve.process.unwatch(watch) }
    }

    private func part<Result>(_ part: StartError.Part, _ start: () async throws -> Result) async throws {
        do {
            _ = try await start()
        } catch {
            throw StartError(part: part, reason: error)
        }
    }

    private func adminRoutes() -> [AdminServer.Route] {
        // Health checks also here, where clients of the registry cannot take all connections.
        let configuration = self.configuration
        var routes: [AdminServer.Route] = [
            AdminServer.Route("/livez") { _ in AdminServer.Response(body: ByteBuffer()) },
            AdminServer.Route("/readyz") { _ in
                let problem = Self.problem(configuration)
                return AdminServer.Response(
                    problem == nil ? .ok : .internalServerError, fields: [("Cache-Control", "no-store")],
                    body: ByteBuffer(string: problem.map { "\($0)\n" } ?? ""))
            },
        ]
        if let metrics = configuration.metrics as? PrometheusRegistry { routes.append(.metrics(metrics)) }
        if configuration.servesDebugPages {
            if let router = configuration.router { routes.append(.metadata(router)) }
            routes.append(.status { [weak self] in await self?.status })
            routes.append(.requests(requestLog))
            routes.append(.traffic(traffic))
            routes += AdminServer.Route.debugPage { [weak self] in await self?.debugPage }
            if let measurement { routes += AdminServer.Route.measurement(measurement, filter: configuration.filter) }
        }
        return routes + configuration.adminRoutes
    }

    // MARK: State

    /// The addresses the registry listens on, with the ports the system chose; empty unless the node runs.
    public var registryAddresses: [SocketAddress] { registry.addresses }

    /// The addresses the admin server listens on; empty unless it runs.
    public var adminAddresses: [SocketAddress] { admin.withLockedValue { $0 }?.addresses ?? [] }

    /// Contents that this node has claimed and not received yet.
    package var coldStartContents: Int { coldStart?.contents ?? 0 }

    /// The node's state now.
    public var status: Status {
        get async {
            var status = Status()
            let problem = lifecycle.isRunning ? Self.problem(configuration) : "the node does not run"
            status.isReady = problem == nil
            status.reason = problem
            status.registryAddresses = registryAddresses.map(\.endpointText)
            status.openConnections = registry.openConnections
            status.findings = Array(configuration.findings().prefix(Status.findingLimit))
            if let router = configuration.router {
                status.localPeer = Status.PeerInfo(router.localPeer)
                status.peers = await router.knownPeerDetails().map { Status.PeerInfo($0) }
            }
            if let advertiser {
                let keys = await advertiser.advertisedKeys
                status.advertisedKeyCount = keys.count
                status.advertisedKeys = Array(keys.sorted().prefix(Status.keyLimit))
                status.store = Status.Store(await advertiser.storeSummary)
            }
            if let storeEvents { status.store = Status.Store(storeEvents.summary) }
            status.coldStarts = coldStart?.reports.prefix(Status.coldStartLimit).map { Status.ColdStart($0) }
            if let engine {
                let summary = engine.summary
                status.mirror = Status.Mirror(
                    hits: summary.hits, misses: summary.misses, lastSuccess: summary.lastSuccess,
                    requestsUnderWay: engine.requestsUnderWay)
            }
            return status
        }
    }

    /// The debug page of now, or of the last second: making it takes milliseconds, and many may look at it.
    private var debugPage: ByteBuffer {
        get async {
            let (now, measured) = (NIODeadline.now(), measurement?.report)
            if measured?.phase != .running, let made = madePage.withLockedValue({ $0 }), now - made.time < Self.pageAge
            {
                return made.page
            }
            let page = DebugPage(
                status: await status, traffic: traffic.snapshot(), requests: requestLog.entries,
                images: await storedImages.current, measurement: measured, canMeasure: measurement != nil,
                hasMetrics: configuration.metrics is PrometheusRegistry)
            let bytes = ByteBuffer(string: page.document.markup)
            madePage.withLockedValue { $0 = (bytes, now) }
            return bytes
        }
    }

    /// Why the node is not ready; nil when it is.
    private static func problem(_ configuration: Configuration) -> String? {
        if let problem = configuration.storeProblem() { return problem }
        if let router = configuration.router, !router.isReady { return "the router has not joined the cluster" }
        return nil
    }
}

/// Runs a `Service` in a service group of its own, so that it can be shut down at its place in the node's order.
private final class ServiceTask: Sendable {
    private let group: ServiceGroup
    private let task = NIOLockedValueBox<Task<Void, Never>?>(nil)
    private let isEnding = NIOLockedValueBox(false)

    init(_ service: any Service, logger: Logger) {
        group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: [.init(service: service, successTerminationBehavior: .gracefullyShutdownGroup)],
                logger: logger))
    }

    /// - Parameter onEnd: called when the service ends without having been shut down, with its error.
    func start(onEnd: @escaping @Sendable ((any Error)?) async -> Void) {
        // Detached, because a task would inherit the graceful shutdown of the node's own service group.
        let task = Task.detached { [group, isEnding] in
            var failure: (any Error)?
            do { try await group.run() } catch { failure = error }
            let ended = failure
            // Not awaited: what it calls shuts this down.
            if !isEnding.withLockedValue({ $0 }) { Task { await onEnd(ended) } }
        }
        self.task.withLockedValue { $0 = task }
    }

    func shutdown() async {
        isEnding.withLockedValue { $0 = true }
        guard let task = task.withLockedValue({ $0 }) else { return }
        await group.triggerGracefulShutdown()
        await task.value
    }
}

/// Logs the events of a store whose content is not advertised.
private final class StoreEventTask: Sendable {
    private let store: any ContentStore
    private let log: NIOLockedValueBox<StoreEventLog>
    private let task = NIOLockedValueBox<Task<Void, Never>?>(nil)

    init(store: any ContentStore, logger: Logger) {
        self.store = store
        log = NIOLockedValueBox(StoreEventLog(logger: logger))
    }

    var summary: StoreEventLog.Summary { log.withLockedValue { $0.summary } }

    func start() {
        let task = Task { [store, log] in
            for await event in store.events() { log.withLockedValue { $0.record(event) } }
        }
        self.task.withLockedValue { $0 = task }
    }

    func shutdown() async {
        let task = task.withLockedValue { $0 }
        task?.cancel()
        await task?.value
    }
}
