import Logging
import NIOCore
import PeerRouting

/// Takes part in a cluster's DHT for the time of one question.
package struct DHTClient: Sendable {
    private let source: any BootstrapSource
    private let clusterPort: UInt16
    private let isLocal: Bool
    private let timeout: Duration
    private let logger: Logger

    /// - Parameters:
    ///   - source: Names the nodes that are asked first.
    ///   - clusterPort: The port of nodes whose bootstrap record names none.
    ///   - isLocal: Whether the cluster is on this machine, so that loopback addresses are good.
    ///   - timeout: How long joining, and a ping's identification, may take.
    package init(
        source: any BootstrapSource, clusterPort: UInt16, isLocal: Bool, timeout: Duration, logger: Logger
    ) {
        self.source = source
        self.clusterPort = clusterPort
        self.isLocal = isLocal
        self.timeout = timeout
        self.logger = logger
    }

    /// What a ping tells.
    struct Pong: Sendable {
        var id: PeerID
        var agentVersion: String?
        var protocols: [String]
        var addresses: [Multiaddr]
        /// The shortest of a few round trips.
        var roundTrip: Duration
    }

    private func router(joining: Bool) -> KademliaRouter {
        var configuration = KademliaRouterConfiguration(
            identity: NodeIdentity(), listenAddresses: [], bootstrap: joining ? source : nil, logger: logger)
        configuration.isMember = false
        configuration.clusterPort = clusterPort
        configuration.advertiseLoopback = isLocal
        return KademliaRouter(configuration: configuration)
    }

    private func started<Answer>(
        joining: Bool, _ body: (KademliaRouter) async throws -> Answer
    ) async throws -> Answer {
        let router = router(joining: joining)
        try await router.start()
        do {
            let answer = try await body(router)
            await router.shutdown()
            return answer
        } catch {
            await router.shutdown()
            throw error
        }
    }

    /// Joins the cluster without becoming a member, and asks it something.
    ///
    /// - Throws: ``CommandFailure`` when no node answers in time.
    package func joined<Answer>(_ body: (KademliaRouter) async throws -> Answer) async throws -> Answer {
        try await started(joining: true) { router in
            let deadline = ContinuousClock.now + timeout
            while router.state != .joined {
                guard ContinuousClock.now < deadline else {
                    throw CommandFailure("no node of the cluster answered within \(timeout): \(await reason(router))")
                }
                try await Task.sleep(for: .milliseconds(10))
            }
            return try await body(router)
        }
    }

    /// Why nobody could be joined, found out by trying once more.
    private func reason(_ router: KademliaRouter) async -> String {
        do {
            let candidates = try await source.candidates()
            var reasons: [String] = []
            for candidate in candidates.prefix(3) {
                guard let candidate = candidate.completed(port: clusterPort, own: router.peerID, ownAddresses: [])
                else { continue }
                do {
                    let id = try await router.host.connect(
                        to: candidate.id, addresses: candidate.addresses, ignoringBackOff: true)
                    reasons.append("\(id) can be connected to, but is no member of a Spegel cluster, or too slow")
                } catch {
                    reasons.append("\(error)")
                }
            }
            return reasons.isEmpty ? "bootstrapping names no node" : reasons.joined(separator: "; ")
        } catch {
            return "\(error)"
        }
    }

    /// Connects to a node and measures the way.
    ///
    /// - Throws: ``CommandFailure``.
    func ping(_ node: NodeAddress) async throws -> Pong {
        try await started(joining: false) { router in
            do {
                let host = router.host
                let id = try await host.connect(
                    to: node.multiaddr.peerID, addresses: [node.multiaddr], ignoringBackOff: true)
                var shortest: Duration?
                for _ in 0..<3 {
                    let time = try await host.ping(id)
                    shortest = min(shortest ?? time, time)
                }
                try await host.waitForIdentify(of: id, atMost: timeout)
                return Pong(
                    id: id, agentVersion: host.agentVersion(of: id), protocols: host.protocols(of: id) ?? [],
                    addresses: host.addresses(of: id), roundTrip: shortest ?? .zero)
            } catch let error as HostError {
                throw CommandFailure("\(node): \(error)")
            }
        }
    }
}
