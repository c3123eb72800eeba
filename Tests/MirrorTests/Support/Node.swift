import ContentStore
import Logging
import NIOCore
import NIOPosix
import OCIDistribution
import PeerRouting

@testable import MirrorServer

/// A node with an empty store, on a port of its own, in a network of peers in memory.
struct Node: Sendable {
    let server: RegistryServer
    let engine: MirrorEngine
    let router: InMemoryPeerRouter
    let registry: PrometheusRegistry
    let port: Int

    /// Deadlines that are met even when the machine is stalled for a while; a test of a fault that only a deadline detects
    /// sets it shorter.
    static func configuration(peerPort: Int) -> MirrorConfiguration {
        var configuration = MirrorConfiguration(peerPort: peerPort)
        configuration.resolveTimeout = .seconds(60)
        configuration.peers.dialTimeout = .seconds(60)
        configuration.peers.queueTimeout = .seconds(60)
        configuration.peers.firstByteTimeout = .seconds(60)
        configuration.peers.progressTimeout = .seconds(60)
        configuration.manifestTimeout = .seconds(120)
        configuration.blobTimeout = .seconds(120)
        return configuration
    }

    static func start(
        network: InMemoryPeerNetwork, peerPort: Int, store: any ContentStore = InMemoryContentStore(), id: UInt8 = 200,
        group: MultiThreadedEventLoopGroup = .singleton,
        configure: (inout MirrorConfiguration) -> Void = { _ in }
    ) async throws -> Node {
        var configuration = configuration(peerPort: peerPort)
        configure(&configuration)
        let router = InMemoryPeerRouter(peer: try peer(id), network: network)
        let registry = PrometheusRegistry()
        let engine = MirrorEngine(
            configuration: configuration, router: router, eventLoopGroup: group, routerName: "memory",
            metricsFactory: registry, logger: quiet)
        var http = HTTPServerConfiguration(listen: [ListenAddress(host: "127.0.0.1", port: 0)], eventLoopGroup: group)
        // The deadlines of the engine are tested, not those of the server.
        http.limits.responseTimeout = .seconds(3600)
        http.limits.progressTimeout = .seconds(3600)
        let server = RegistryServer(
            configuration: RegistryServer.Configuration(http: http), store: store, missHandler: engine, logger: quiet)
        let port = try await server.start().first?.port ?? 0
        return Node(server: server, engine: engine, router: router, registry: registry, port: port)
    }

    func stop() async {
        await server.shutdown(gracePeriod: .zero)
        await engine.shutdown()
    }

    /// The metrics of failed requests to peers, by reason.
    var failures: String {
        String(decoding: registry.text(), as: UTF8.self).split(separator: "\n")
            .filter { $0.hasPrefix("spegel_mirror_peer_failures_total{") }.joined(separator: " ")
    }

    /// The value of a metric.
    func metric(_ line: String) -> Double? {
        String(decoding: registry.text(), as: UTF8.self).split(separator: "\n").first { $0.hasPrefix(line + " ") }
            .flatMap { $0.split(separator: " ").last }.flatMap { Double($0) }
    }
}

/// Announces content of a peer to the network.
func advertise(_ keys: [String], of peer: Peer, in network: InMemoryPeerNetwork) async throws {
    try await InMemoryPeerRouter(peer: peer, network: network).advertise(keys)
}

func blobPath(_ digest: Digest) -> String { "/v2/library/demo/blobs/\(digest)?ns=docker.io" }
func manifestPath(_ digest: Digest) -> String { "/v2/library/demo/manifests/\(digest)?ns=docker.io" }
