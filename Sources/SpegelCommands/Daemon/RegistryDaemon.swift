import ContentStore
import Logging
import MirrorServer
import OCIDistribution
import PeerRouting
import ServiceLifecycle
import UnixSignals

/// The daemon: a ``MirrorNode`` and its store, made from options.
struct RegistryDaemon {
    /// The options.
    struct Configuration {
        var store: StoreChoice
        var containerd = ContainerdOptions()
        var registryAddress: ListenAddress
        var metricsAddress: ListenAddress
        /// How this node takes part in the cluster; nil to serve only what the store holds.
        var peers: PeerOptions?
        /// Whether the metrics port has the debug pages, too.
        var debugWebEnabled = true
        var defaultRegistry: String?
        var filter: ReferenceFilter = .all
        var credentials: BasicCredentials?
        /// How long running transfers may go on after a signal to stop.
        var shutdownGracePeriod: Duration
    }

    private let configuration: Configuration
    private let logControl: LogControl
    private let logger: Logger
    private let libraryLogger: Logger

    /// - Parameters:
    ///   - logControl: the level of the loggers, which signals change.
    ///   - libraryLogger: for libraries, without their DEBUG lines.
    init(configuration: Configuration, logControl: LogControl, logger: Logger, libraryLogger: Logger) {
        self.configuration = configuration
        self.logControl = logControl
        self.logger = logger
        self.libraryLogger = libraryLogger
    }

    /// Serves until a signal asks it to stop.
    ///
    /// - Throws: ``StartFailure`` when it cannot start, or what ends a running daemon.
    func run() async throws {
        LogLevelSignals.ignore()
        let openFiles = OpenFileLimit.raise()
        if openFiles < 4096 {
            logger.warning(
                "few open files are allowed, so many connections at once will fail; raise the hard limit",
                metadata: ["limit": .stringConvertible(openFiles)])
        }
        let metrics = PrometheusRegistry()
        metrics.gauge(
            "spegel_build_info", labels: [("version", Version.current), ("commit", Version.commit ?? "")]
        ) { 1 }
        let store = try await DaemonStore.open(
            configuration.store, containerd: configuration.containerd, metrics: metrics, logger: logger)
        let node: MirrorNode
        do {
            node = try MirrorNode(try nodeConfiguration(store: store, metrics: metrics))
        } catch let error as MirrorNode.ConfigurationError {
            throw StartFailure("\(error)", hint: "give --registry-addr the same fixed port on all nodes")
        }
        // Services stop in the reverse order: the store goes on until the node's last transfer has ended.
        var group = ServiceGroupConfiguration(
            services: [LogLevelSignals(control: logControl, logger: logger), store.service, node].map {
                .init(service: $0)
            },
            // A terminal that is closed, or a supervisor of the old kind, sends SIGHUP: it drains as well.
            gracefulShutdownSignals: [.sigterm, .sigint, .sighup],
            logger: libraryLogger
        )
        group.maximumGracefulShutdownDuration = configuration.shutdownGracePeriod + .seconds(5)
        do {
            // The group catches signals before it starts the servers, so that none is lost once they answer.
            try await ServiceGroup(configuration: group).run()
        } catch let error as MirrorNode.StartError {
            switch error.part {
            case .router:
                throw StartFailure("\(error)", hint: "check --router-addr and --data-dir")
            case .registry, .admin:
                throw StartFailure("\(error.reason)")
            }
        }
        logger.info("stopped")
    }

    private func nodeConfiguration(store: DaemonStore, metrics: PrometheusRegistry) throws -> MirrorNode.Configuration {
        var node = MirrorNode.Configuration(
            store: store.content, registryAddress: configuration.registryAddress,
            adminAddress: configuration.metricsAddress, metrics: metrics, logger: logger)
        node.defaultRegistry = configuration.defaultRegistry
        node.filter = configuration.filter
        node.credentials = configuration.credentials
        node.limits.shutdownGracePeriod = configuration.shutdownGracePeriod
        node.servesDebugPages = configuration.debugWebEnabled
        node.managesStore = false
        node.storeProblem = store.problem
        let findings = store.findings
        node.findings = { findings.current }
        guard let peers = configuration.peers else {
            logger.info("no --bootstrap-kind is given, so no peers are looked for: only what the store holds is served")
            return node
        }
        node.router = try peers.makeRouter(logger: logger)
        node.dataDirectory = peers.dataDirectory.isEmpty ? nil : peers.dataDirectory
        node.mirror.resolveTimeout = peers.resolveTimeout
        node.mirror.resolveRetries = peers.resolveRetries
        node.mirror.resolvesTags = peers.resolvesTags
        node.mirror.coldStart = peers.coldStart
        return node
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
