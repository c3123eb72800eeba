import ContentStore
import Foundation
import Logging
import MirrorServer
import PeerRouting
import ServiceLifecycle
import UnixSignals

/// A node of a cluster, whose content is an OCI image layout: `PeerToPeerNode DIRECTORY IP [MULTIADDRESS-OF-A-PEER ...]`.
@main
struct PeerToPeerNode {
    static func main() async throws {
        let arguments = CommandLine.arguments.dropFirst()
        guard let directory = arguments.first, let host = arguments.dropFirst().first, let address = IPAddress(host)
        else { exit(64) }
        let peers = try arguments.dropFirst(2).map { try Multiaddr(parsing: $0) }
        let logger = Logger(label: "node")

        // Content: any ContentStore does.
        var layout = OnDiskContentStore.Options()
        layout.createsIfMissing = true
        let store = try await OnDiskContentStore.open(path: directory, options: layout)

        // Peers: any PeerRouter does. The first node of a cluster has no peers to begin with.
        var routing = KademliaRouterConfiguration(
            identity: NodeIdentity(), listenAddresses: [Multiaddr(address, tcpPort: 5001)],
            bootstrap: peers.isEmpty ? nil : try StaticBootstrapSource(peers), logger: logger)
        routing.advertiseLoopback = address.isLoopback

        // The node: serves the content, fetches the rest from peers, and advertises what it has.
        let node = try MirrorNode(
            MirrorNode.Configuration(
                store: store, router: KademliaRouter(configuration: routing),
                registryAddress: ListenAddress(host: host, port: 5000),
                adminAddress: ListenAddress(host: host, port: 9090), logger: logger))
        try await ServiceGroup(
            services: [node], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger
        ).run()
    }
}
