import ContentClaims
import NIOCore
import Synchronization

/// What a set of ``InMemoryPeerRouter``s know together: the stand-in for a network within one process.
public final class InMemoryPeerNetwork: Sendable {
    package struct State {
        /// Providers per key, in the order of their announcements.
        package var providers: [String: [Peer]] = [:]
        /// All members in the order in which they joined.
        package var members: [Peer] = []
        /// One arbiter for all.
        package var claims = ClaimTable<PeerID>()
    }

    package let state = Mutex(State())

    /// Makes a network without members.
    public init() {}
}

/// A ``PeerRouter`` within one process, for tests and for embedders without a network.
///
/// All routers that share an ``InMemoryPeerNetwork`` see each other's announcements at once. It keeps the promises of
/// the protocol (never yields itself, demotes peers reported unreachable) and grows only with the keys advertised.
public final class InMemoryPeerRouter: PeerRouter {
    /// The network this router takes part in.
    public let network: InMemoryPeerNetwork
    /// This node, as given to ``init(peer:network:isReady:)``.
    public let localPeer: Peer

    private struct State {
        var isReady: Bool
        var hasLeft = false
        var unreachable: Set<PeerID> = []
    }
    private let state: Mutex<State>

    /// Joins `network` as `peer`.
    ///
    /// - Parameters:
    ///   - peer: How the other routers will see this one.
    ///   - network: The shared registry; routers of different networks do not see each other.
    ///   - isReady: What ``isReady`` answers until the router is shut down.
    public init(peer: Peer, network: InMemoryPeerNetwork = InMemoryPeerNetwork(), isReady: Bool = true) {
        self.network = network
        self.localPeer = peer
        self.state = Mutex(State(isReady: isReady))
        network.state.withLock { shared in
            shared.members.removeAll { $0.id == peer.id }
            shared.members.append(peer)
        }
    }

    /// Whether the router claims to be ready.
    public var isReady: Bool { state.withLock { $0.isReady } }

    /// Leaves the network: the others no longer find this node, and it can advertise no more.
    public func shutdown() async {
        state.withLock {
            $0.hasLeft = true
            $0.isReady = false
        }
        let id = localPeer.id
        network.state.withLock { shared in
            shared.members.removeAll { $0.id == id }
            for (key, peers) in shared.providers where peers.contains(where: { $0.id == id }) {
                let rest = peers.filter { $0.id != id }
                shared.providers[key] = rest.isEmpty ? nil : rest
            }
        }
    }

    /// Announces `keys` to every router of the network.
    ///
    /// - Throws: ``PeerRouterError/stopped`` after ``shutdown()``.
    public func advertise(_ keys: [String]) async throws {
        if state.withLock({ $0.hasLeft }) { throw PeerRouterError.stopped }
        network.state.withLock { shared in
            for key in keys where !(shared.providers[key] ?? []).contains(where: { $0.id == localPeer.id }) {
                shared.providers[key, default: []].append(localPeer)
            }
        }
    }

    /// Takes the announcements of `keys` back at once.
    public func withdraw(_ keys: [String]) async {
        network.state.withLock { shared in
            for key in keys {
                guard var peers = shared.providers[key] else { continue }
                peers.removeAll { $0.id == localPeer.id }
                shared.providers[key] = peers.isEmpty ? nil : peers
            }
        }
    }

    /// The other members that advertise `key`, those reported unreachable last.
    public func providers(for key: String, limit: Int) -> AsyncStream<Peer> {
        let unreachable = state.withLock { $0.unreachable }
        let others = network.state.withLock { $0.providers[key] ?? [] }.filter { $0.id != localPeer.id }
        let ordered = others.filter { !unreachable.contains($0.id) } + others.filter { unreachable.contains($0.id) }
        return AsyncStream { continuation in
            for peer in limit > 0 ? ordered.prefix(limit) : ordered[...] {
                continuation.yield(peer)
            }
            continuation.finish()
        }
    }

    /// Demotes `peer` in this router's answers.
    public func reportUnreachable(_ peer: PeerID) {
        let isMember = network.state.withLock { $0.members.contains { $0.id == peer } }
        // Only members are remembered, so that the set is bounded by the network.
        if isMember { _ = state.withLock { $0.unreachable.insert(peer) } }
    }

    /// Whether the network has another member.
    public var canClaim: Bool { network.state.withLock { $0.members.contains { $0.id != localPeer.id } } }

    /// Asks the arbiter that all routers of the network share.
    public func claim(_ claim: ContentClaim) async -> ClaimAnswer {
        let id = localPeer.id
        return network.state.withLock { shared in
            let answer = shared.claims.claim(
                claim.key, by: id, offset: claim.offset, failedParent: claim.failedParent,
                upstreamRate: claim.upstreamRate, current: claim.current.map { .init($0) }, now: .now())
            switch answer {
            case .lead: return .lead
            case .unknown, .wait: return .unknown
            case .follow(let parent):
                guard let peer = shared.members.first(where: { $0.id == parent }) else { return .unknown }
                return .follow(peer)
            }
        }
    }

    /// Tells the arbiter.
    public func report(_ progress: ClaimProgress, of key: String) async -> Bool {
        network.state.withLock { $0.claims.report(.init(progress), of: key, by: localPeer.id, now: .now()) }
    }

    /// The other members of the network.
    public func knownPeers() async -> [Peer] {
        network.state.withLock { $0.members }.filter { $0.id != localPeer.id }
    }
}

extension ClaimTable<PeerID>.Current {
    /// The same, as the arbiter's table has it.
    package init(_ current: ContentClaim.Current) {
        switch current {
        case .leading: self = .leading
        case .following(let parent): self = .following(parent)
        }
    }
}

extension ClaimTable.Progress {
    /// The same, as the arbiter's table has it.
    package init(_ progress: ClaimProgress) {
        switch progress {
        case .arriving(let bytes): self = .arriving(bytes: bytes)
        case .complete: self = .complete
        case .failed: self = .failed
        }
    }
}
