import Logging
import PeerTestKit
import TestSupport

@testable import PeerRouting

/// A router on a loopback address.
///
/// - Parameters:
///   - address: Where to listen; port 0 for any.
///   - peers: Whom to join: addresses that end in a peer ID.
func makeRouter(
    identity: NodeIdentity = NodeIdentity(), address: String = "/ip4/127.0.0.1/tcp/0", joining peers: [Multiaddr] = [],
    configure: (inout KademliaRouterConfiguration) -> Void = { _ in }
) throws -> KademliaRouter {
    var configuration = KademliaRouterConfiguration(
        identity: identity, listenAddresses: [try Multiaddr(parsing: address)],
        bootstrap: peers.isEmpty ? nil : try StaticBootstrapSource(peers),
        logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    configuration.advertiseLoopback = true
    configuration.hostLimits = .generous
    // A search does not leave out who is slow because the machine is.
    configuration.kademlia.query.stallAfter = .seconds(10)
    configuration.kademlia.queryDeadline = .minutes(2)
    configure(&configuration)
    return KademliaRouter(configuration: configuration)
}

extension HTTPBootstrapSource {
    /// One that a machine that stalls does not make give up.
    static func patient(_ url: String) -> HTTPBootstrapSource {
        var source = HTTPBootstrapSource(url: url)
        (source.connectTimeout, source.timeout) = (.minutes(2), .minutes(2))
        return source
    }
}

/// Starts routers, runs the body, and shuts them down whatever happens.
func withRouters(_ routers: KademliaRouter..., body: () async throws -> Void) async throws {
    func stop() async { for router in routers { await router.shutdown() } }
    do {
        for router in routers { try await router.start() }
        try await body()
    } catch {
        await stop()
        throw error
    }
    await stop()
}

extension KademliaRouter {
    /// Where it listens, with its ID.
    var fullAddresses: [Multiaddr] { host.listenAddresses.map { $0.withPeerID(peerID) } }

    /// Waits until it has joined.
    func joined() async throws {
        try await eventually { self.state == .joined }
    }

    /// The IDs of all that are found for a key.
    func found(_ key: String, limit: Int = 0) async -> Set<PeerID> {
        var peers: Set<PeerID> = []
        for await peer in providers(for: key, limit: limit) { peers.insert(peer.id) }
        return peers
    }
}
