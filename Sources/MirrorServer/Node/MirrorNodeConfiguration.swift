import ContentStore
import HTTPServer
import Logging
import Metrics
import NIOCore
import OCIDistribution
import PeerRoutingCore
import PrometheusMetrics

extension MirrorNode {
    /// Everything a node is made of, each thing once.
    public struct Configuration: Sendable {
        /// The node's content.
        public var store: any ContentStore
        /// Finds peers and is given the keys of the node's content; nil for a node that serves its own content only.
        public var router: (any PeerRouter)?
        /// Where the registry listens; at least one address.
        public var registryAddresses: [ListenAddress]
        /// Where metrics and status are served; nil for no admin server.
        public var adminAddress: ListenAddress?
        /// The port of the peers' registries, the same on every node; nil for the port of the first registry address.
        public var peerPort: UInt16?
        /// The registry of requests that name none (no `ns`, no registry in the path); nil for none.
        public var defaultRegistry: String?
        /// Which references are served, fetched from peers and advertised.
        public var filter = ReferenceFilter.all
        /// When not nil, clients have to send them, and they are sent to peers.
        public var credentials: BasicCredentials?
        /// The bounds of the registry's connections. Its `shutdownGracePeriod` is how long running responses may go on
        /// after a graceful shutdown began.
        public var limits = HTTPLimits()
        /// Most file or stream bodies that are sent at the same time. Beyond it: `429`.
        public var concurrentUploads = 4096
        /// The bounds of fetching from peers.
        public var mirror = MirrorConfiguration()
        /// The bounds of advertising.
        public var advertiser = AdvertiserConfiguration()
        /// The event loops of all connections; nil for those of the process.
        public var eventLoopGroup: (any EventLoopGroup)?
        /// Receives the metrics. A `PrometheusRegistry` gets the process's metrics, too, and is served at `/metrics`.
        public var metrics: any MetricsFactory
        /// Whether the admin server has the pages below `/debug/`.
        public var servesDebugPages = true
        /// Further routes of the admin server.
        public var adminRoutes: [AdminServer.Route] = []
        /// Whether the node starts and shuts down the router with itself.
        public var managesRouter = true
        /// Whether the node runs the store and shuts it down last, if it is a `Service`.
        public var managesStore = true
        /// Why the store is not ready, or nil when it is. Called on event loops, so it must neither block nor take long.
        public var storeProblem: @Sendable () -> String? = { nil }
        /// What was found to be wrong with the node's set-up, for ``Status/findings``. Called for every status, so it must not
        /// look itself.
        public var findings: @Sendable () -> [Status.Finding] = { [] }
        /// An existing directory in which the counts of traffic are kept over restarts; nil to count anew at each start.
        public var dataDirectory: String?
        /// Where the node and its parts log.
        public var logger: Logger

        /// A node that serves everything in a store to every client, and fetches from the peers a router finds.
        public init(
            store: any ContentStore, router: (any PeerRouter)? = nil,
            registryAddress: ListenAddress = ListenAddress(host: nil, port: 5000), adminAddress: ListenAddress? = nil,
            metrics: any MetricsFactory = PrometheusRegistry(), logger: Logger
        ) {
            self.store = store
            self.router = router
            registryAddresses = [registryAddress]
            self.adminAddress = adminAddress
            self.metrics = metrics
            self.logger = logger
        }
    }

    /// A configuration that no node can be made of.
    public enum ConfigurationError: Error, Hashable, CustomStringConvertible {
        /// There is no address to listen on.
        case noRegistryAddress
        /// There is a router, but the registry's port is chosen by the system, and peers expect the same port on all
        /// nodes.
        case noPeerPort

        /// What is wrong.
        public var description: String {
            switch self {
            case .noRegistryAddress: "the registry has no address to listen on"
            case .noPeerPort: "the registry has port 0, but peers are asked on the port that this node itself serves on"
            }
        }
    }

    /// A part of a node did not start.
    public struct StartError: Error, CustomStringConvertible {
        /// The parts that can fail to start.
        public enum Part: String, Sendable {
            case router, registry, admin
        }

        /// Which one.
        public var part: Part
        /// Why: `ListenError` for a server.
        public var reason: any Error
        /// Both.
        public var description: String { "the \(part.rawValue) does not start: \(reason)" }
    }
}
