import Logging
import MirrorServer
import PeerRouting

/// How a node takes part in a cluster.
struct PeerOptions: Sendable {
    var routerAddress: ListenAddress
    var bootstrap: any BootstrapSource
    /// Where to serve this node's own record for others to bootstrap by.
    var identityServerAddress: ListenAddress?
    var certificateDirectory: String?
    /// Keeps the identity; empty for a new one at each start.
    var dataDirectory = ""
    var resolveTimeout: Duration
    var resolveRetries: Int
}

/// The router and the mirror that fetches from the peers it finds.
struct PeerServices: Sendable {
    var router: KademliaRouter
    var mirror: MirrorEngine

    /// Listens for peers and begins to join the cluster.
    ///
    /// - Throws: ``StartFailure``.
    static func start(
        _ options: PeerOptions, registryPort: UInt16, credentials: BasicCredentials?, metrics: PrometheusRegistry,
        logger: Logger
    ) async throws -> PeerServices {
        guard registryPort != 0 else {
            throw StartFailure(
                "--registry-addr has port 0, but peers are asked on the port this node itself serves on",
                hint: "give --registry-addr the same fixed port on all nodes")
        }
        let router: KademliaRouter
        do {
            router = KademliaRouter(configuration: try routerConfiguration(options, logger: logger))
            try await router.start()
        } catch {
            throw StartFailure("the router does not start: \(error)", hint: "check --router-addr and --data-dir")
        }
        var mirroring = MirrorConfiguration(peerPort: Int(registryPort))
        mirroring.peers.credentials = credentials
        mirroring.resolveTimeout = options.resolveTimeout
        mirroring.resolveRetries = options.resolveRetries
        let mirror = MirrorEngine(
            configuration: mirroring, router: router, metricsFactory: metrics, logger: logger)
        return PeerServices(router: router, mirror: mirror)
    }

    private static func routerConfiguration(
        _ options: PeerOptions, logger: Logger
    ) throws -> KademliaRouterConfiguration {
        let identity =
            options.dataDirectory.isEmpty
            ? NodeIdentity() : try NodeIdentity.loadOrCreate(inDirectory: options.dataDirectory)
        // As with the original, a name that is no address means all interfaces.
        let address = options.routerAddress.host.flatMap { IPAddress($0) }
        let port = options.routerAddress.port
        var configuration = KademliaRouterConfiguration(
            identity: identity,
            listenAddresses: (address.map { [$0] } ?? [.anyV4, .anyV6]).map { Multiaddr($0, tcpPort: port) },
            bootstrap: options.bootstrap, logger: logger)
        // Whoever listens on a loopback address alone has peers on this machine only.
        configuration.advertiseLoopback = address?.isLoopback ?? false
        configuration.identityServerAddress = options.identityServerAddress?.description
        configuration.identityServerCertificateDirectory = options.certificateDirectory
        return configuration
    }
}
