import ContentStore
import Logging
import MirrorServer
import NIOPosix
import OCIDistribution
import PeerRouting
import ServiceLifecycle
import UnixSignals

/// The daemon, put together from its parts: a store, the server that answers from it, and, when it is told where the
/// first peers are, the router that finds peers, the mirror that fetches from them and the advertiser that tells them
/// what is here.
struct RegistryDaemon {
    /// What the daemon is made of.
    struct Configuration {
        var store: StoreChoice
        var containerd = ContainerdOptions()
        var registryAddress: ListenAddress
        var metricsAddress: ListenAddress
        /// How this node takes part in the cluster; nil to serve only what the store holds.
        var peers: PeerOptions?
        /// Whether the metrics port has the debug pages too.
        var debugWebEnabled = true
        var defaultRegistry: String?
        var filter: ReferenceFilter = .all
        var credentials: BasicCredentials?
        /// How long running transfers may go on after a signal to stop.
        var shutdownGracePeriod: Duration
    }

    private let configuration: Configuration
    private let logger: Logger

    init(configuration: Configuration, logger: Logger) {
        self.configuration = configuration
        self.logger = logger
    }

    /// Serves until a signal asks it to stop.
    ///
    /// - Throws: ``StartFailure`` when it cannot start, or what ends a running daemon.
    func run() async throws {
        let openFiles = OpenFileLimit.raise()
        if openFiles < 4096 {
            logger.warning(
                "few open files are allowed, so many connections at once will fail; raise the hard limit",
                metadata: ["limit": .stringConvertible(openFiles)])
        }
        let metrics = PrometheusRegistry()
        ProcessMetrics.register(in: metrics)
        let store = try await DaemonStore.open(
            configuration.store, containerd: configuration.containerd, metrics: metrics, logger: logger)
        let peers = try await joinPeers(metrics: metrics)
        let server = registryServer(store: store, peers: peers, metrics: metrics)
        let metricsServer = metricsServer(peers: peers, metrics: metrics)
        // Services stop in the reverse order: first the peers hear that this node leaves, then running transfers end,
        // and the store goes on until the last one is done.
        var services: [any Service] = [store.service, ContentEventLog(store: store.content, logger: logger)]
        if let peers {
            var advertising = AdvertiserConfiguration()
            advertising.filter = configuration.filter
            services.append(
                Advertiser(
                    configuration: advertising, store: store.content, router: peers.router, metricsFactory: metrics,
                    logger: logger))
            services.append(UntilShutdown { await peers.mirror.shutdown() })
        }
        services += [metricsServer, server]
        if let peers { services.append(UntilShutdown { await peers.router.shutdown() }) }
        var group = ServiceGroupConfiguration(
            services: services.map { .init(service: $0) },
            gracefulShutdownSignals: [.sigterm, .sigint],
            logger: logger
        )
        group.maximumGracefulShutdownDuration = configuration.shutdownGracePeriod + .seconds(5)
        do {
            // The group catches signals before it starts the servers, so that none is lost once they answer.
            try await ServiceGroup(configuration: group).run()
        } catch let error as ListenError {
            throw StartFailure("\(error)")
        }
        logger.info("stopped")
    }

    private func joinPeers(metrics: PrometheusRegistry) async throws -> PeerServices? {
        guard let options = configuration.peers else {
            logger.info("no --bootstrap-kind is given, so no peers are looked for: only what the store holds is served")
            return nil
        }
        return try await PeerServices.start(
            options, registryPort: configuration.registryAddress.port, credentials: configuration.credentials,
            metrics: metrics, logger: logger)
    }

    private func registryServer(
        store: DaemonStore, peers: PeerServices?, metrics: PrometheusRegistry
    ) -> RegistryServer {
        var http = HTTPServerConfiguration(listen: [configuration.registryAddress])
        http.limits.shutdownGracePeriod = configuration.shutdownGracePeriod
        // The mirror's connections to peers live on the server's loops and are closed after the server has stopped.
        http.eventLoopGroup = MultiThreadedEventLoopGroup.singleton
        var registry = RegistryServer.Configuration(http: http)
        registry.defaultRegistry = configuration.defaultRegistry
        registry.filter = configuration.filter
        registry.credentials = configuration.credentials
        return RegistryServer(
            configuration: registry, store: store.content, missHandler: peers?.mirror,
            observer: HTTPMetrics(factory: metrics), logger: logger,
            isReady: { store.isReady() && peers?.router.isReady ?? true })
    }

    private func metricsServer(peers: PeerServices?, metrics: PrometheusRegistry) -> AdminServer {
        var routes: [AdminServer.Route] = [.metrics(metrics)]
        if let peers, configuration.debugWebEnabled { routes.append(.metadata(peers.router)) }
        return AdminServer(
            configuration: HTTPServerConfiguration(listen: [configuration.metricsAddress]), routes: routes,
            logger: logger)
    }
}

/// Why the daemon did not start, and what helps.
struct StartFailure: Error, CustomStringConvertible {
    var reason: String
    var hint: String?

    init(_ reason: String, hint: String? = nil) {
        self.reason = reason
        self.hint = hint
    }

    var description: String {
        hint.map { "\(reason); \($0)" } ?? reason
    }
}
