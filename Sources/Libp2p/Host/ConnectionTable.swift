/// The secured connections by peer, and the identify messages of their peers.
///
/// Bounded by ``HostLimits/connections`` and ``HostLimits/connectionsPerPeer``; ``surplus(for:)`` names what has to be
/// closed to stay within them.
struct ConnectionTable: Sendable {
    /// The part of a peer's identify message that is kept.
    struct PeerInfo: Sendable {
        /// The protocols it accepts streams of.
        var protocols: [String]
        /// Its name and version.
        var agentVersion: String

        /// Whether the peer accepts identify push.
        var acceptsPush: Bool { protocols.contains(IdentifyMessage.pushProtocolID) }
    }

    private let limits: HostLimits
    /// Oldest first. No peer has an empty list.
    private var byPeer: [PeerID: [ConnectionHandle]] = [:]
    private var identified: [PeerID: PeerInfo] = [:]

    /// Connections of all peers.
    private(set) var count = 0

    init(limits: HostLimits) {
        self.limits = limits
    }

    // MARK: Connections

    /// The connected peers.
    var peers: [PeerID] { Array(byPeer.keys) }

    /// Every connection.
    var all: [ConnectionHandle] { byPeer.values.flatMap { $0 } }

    /// The connections to a peer, oldest first.
    func connections(to peer: PeerID) -> [ConnectionHandle] { byPeer[peer] ?? [] }

    /// The connection to use: the newest, as an older one may be dead without a sign of it.
    func newest(to peer: PeerID) -> ConnectionHandle? { byPeer[peer]?.last }

    /// Whether there is a connection to the peer.
    func contains(_ peer: PeerID) -> Bool { byPeer[peer] != nil }

    /// The connections to close before one more to `peer` is added.
    ///
    /// - Throws: ``HostError/limitReached(_:)`` when all connections are in use and there is no room for another.
    func surplus(for peer: PeerID) throws(HostError) -> [ConnectionHandle] {
        // The newest stays, as the peer may have restarted and left the older ones dead.
        if connections(to: peer).count >= limits.connectionsPerPeer {
            return Self.longestIdle(connections(to: peer)).map { [$0] } ?? []
        }
        guard count >= limits.connections else { return [] }
        guard let idle = Self.longestIdle(all.filter { $0.streamCount == 0 }) else {
            throw HostError.limitReached("connections")
        }
        return [idle]
    }

    /// The connection without streams for the longest time; without any such, the one whose streams changed longest ago.
    private static func longestIdle(_ connections: [ConnectionHandle]) -> ConnectionHandle? {
        connections.min { left, right in
            (left.streamCount == 0 ? 0 : 1, left.lastActive) < (right.streamCount == 0 ? 0 : 1, right.lastActive)
        }
    }

    mutating func add(_ connection: ConnectionHandle) {
        byPeer[connection.peer, default: []].append(connection)
        count += 1
    }

    /// Removes a connection if it is there.
    ///
    /// - Returns: True when it was the last one to its peer.
    mutating func remove(_ connection: ConnectionHandle) -> Bool {
        guard var connections = byPeer[connection.peer],
            let index = connections.firstIndex(where: { $0 === connection })
        else { return false }
        connections.remove(at: index)
        count -= 1
        guard connections.isEmpty else {
            byPeer[connection.peer] = connections
            return false
        }
        byPeer[connection.peer] = nil
        identified[connection.peer] = nil
        return true
    }

    // MARK: Identify

    /// From the peer's identify; nil before that has finished, and when the peer is not connected.
    func info(of peer: PeerID) -> PeerInfo? { identified[peer] }

    /// Sets what a connected peer's identify contained; nil to have it requested again.
    mutating func setInfo(_ info: PeerInfo?, of peer: PeerID) {
        identified[peer] = byPeer[peer] == nil ? nil : info
    }

    /// The newest connection to a peer that accepts identify push; nil when it does not.
    func pushTarget(_ peer: PeerID) -> ConnectionHandle? {
        identified[peer]?.acceptsPush == true ? newest(to: peer) : nil
    }

    /// One connection to each peer that accepts identify push.
    var pushTargets: [ConnectionHandle] { byPeer.keys.compactMap { pushTarget($0) } }
}
