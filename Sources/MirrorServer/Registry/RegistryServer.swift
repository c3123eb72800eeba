import ContentStore
import HTTPServer
import Logging
import NIOCore
import OCIDistribution
import ServiceLifecycle

/// Serves the content of a store to registry clients over HTTP/1.1 (OCI distribution specification, "Pull"), and what
/// the store does not have through a ``MissHandler``.
///
/// ```swift
/// var configuration = RegistryServer.Configuration(
///     http: HTTPServerConfiguration(listen: [try ListenAddress(parsing: ":5000")]))
/// configuration.defaultRegistry = "docker.io"
/// let server = RegistryServer(configuration: configuration, store: store, logger: logger)
/// try await server.run()
/// ```
///
/// A connection's work stays on its event loop. Content the store answers for immediately is served without a task or
/// a thread switch, and files go to the socket with `sendfile(2)`.
public final class RegistryServer: Service, Sendable {
    /// How a registry server answers.
    public struct Configuration: Sendable {
        /// Where to listen, and the limits of connections.
        public var http: HTTPServerConfiguration
        /// The registry of requests that name none (no `ns`, no registry in the path); nil for none.
        public var defaultRegistry: String?
        /// Which references are served at all.
        public var filter: ReferenceFilter = .all
        /// When not nil, every request but `/livez` and `/readyz` has to carry them.
        public var credentials: BasicCredentials?
        /// Most file or stream bodies that are sent at the same time. Beyond it: `429`.
        public var concurrentUploads = 4096
        /// Counts what is given to peers, and what a filter forbids.
        var metrics: MirrorMetrics?
        /// Serves content that is arriving to other nodes; nil to serve only what the store has.
        var coldStart: ColdStart?

        /// A configuration that serves everything to everyone.
        public init(http: HTTPServerConfiguration) {
            self.http = http
        }
    }

    private let core: HTTPServerCore

    /// A server that is not started yet.
    ///
    /// - Parameters:
    ///   - configuration: where to listen and what to serve.
    ///   - store: the local content.
    ///   - missHandler: answers for content the store does not have; nil: `404`.
    ///   - observer: receives the outcome of every request.
    ///   - logger: for requests (at debug) and errors.
    ///   - isReady: the answer of `/readyz`; called on event loops, so it must neither block nor take long.
    public init(
        configuration: Configuration,
        store: any ContentStore,
        missHandler: (any MissHandler)? = nil,
        observer: (any RequestObserver)? = nil,
        logger: Logger,
        isReady: @escaping @Sendable () -> Bool = { true }
    ) {
        let responder = RegistryResponder(
            configuration: configuration, store: store, missHandler: missHandler, logger: logger, isReady: isReady)
        core = HTTPServerCore(
            name: "registry", configuration: configuration.http, responder: responder, observer: observer,
            logger: logger)
    }

    /// Starts to listen.
    ///
    /// - Returns: the addresses that are listened on, with the ports the system chose.
    /// - Throws: `ListenError` when an address cannot be listened on, then nothing is left running; `LifecycleError` when
    ///   the server was started or shut down before.
    @discardableResult
    public func start() async throws -> [SocketAddress] {
        try await core.start()
    }

    /// The addresses that are listened on; empty when the server does not run.
    public var addresses: [SocketAddress] { core.addresses }

    /// Connections that are open now.
    public var openConnections: Int { core.openConnections }

    /// Stops to listen, closes idle connections, and lets running responses finish.
    ///
    /// - Parameter gracePeriod: how long they may take before they are aborted; nil for
    ///   `HTTPLimits.shutdownGracePeriod`.
    public func shutdown(gracePeriod: Duration? = nil) async {
        await core.shutdown(gracePeriod: gracePeriod)
    }

    /// Serves until the service group shuts down gracefully (then as ``shutdown(gracePeriod:)``) or the task is cancelled
    /// (then running responses are aborted). Starts the server unless it was started.
    ///
    /// - Throws: `ListenError` when an address cannot be listened on.
    public func run() async throws {
        try await core.run()
    }
}
