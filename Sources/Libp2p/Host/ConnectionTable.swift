import ResourceLimits

/// The secured connections by peer, and the identify messages of their peers.
///
/// Bounded by ``HostLimits/connections``, ``HostLimits/connectionsPerPeer`` and ``HostLimits/connectionsPerSource``;
/// ``surplus(for:at:)`` names what has to be closed to stay within them.
struct ConnectionTable: Sendable {
    /// The part of a peer's identify message that is kept.
    struct PeerInfo: Sendable {
        /// The protocols it accepts streams of.
        var protocols: [String]
        /// Its name and version.
        var agentVersion: String
        /// How long it takes to answer a request, smoothed.
        var roundTripTime: Duration?

        /// Whether the peer accepts identify push.
        var acceptsPush: Bool { protocols.contains(IdentifyMessage.pushProtocolID) }
    }

    private let limits: HostLimits
    /// Oldest first. No peer has an empty list.
    private var byPeer: [PeerID: [ConnectionHandle]] = [:]
    private var identified: [PeerID: PeerInfo] = [:]
    /// Connections by source, without loopback.
    private var bySource = SourceCounts<IPAddress>()
    /// Peers whose connections are not closed to make room for others.
    private var protected: Set<PeerID> = []

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

    /// The connections to close before one more to `peer` at an address is added.
    ///
    /// A source has its share and makes room within it. When all connections are taken, an idle one gives way, first of the
    /// source that has most; then a busy one of a source that has more than the newcomer's. So many connections of one
    /// machine neither keep others out nor push them out.
    ///
    /// - Throws: ``HostError/limitReached(_:)`` when no connection may be closed for it.
    func surplus(for peer: PeerID, at address: IPAddress) throws(HostError) -> [ConnectionHandle] {
        // The newest stays, as the peer may have restarted and left the older ones dead.
        if connections(to: peer).count >= limits.connectionsPerPeer {
            return Self.longestIdle(connections(to: peer)).map { [$0] } ?? []
        }
        let source = limits.source(of: address)
        let own = bySource[source]
        if let source, own >= limits.connectionsPerSource {
            guard let victim = Self.longestIdle(expendable.filter { limits.source(of: $0.remoteAddress) == source })
            else {
                throw HostError.limitReached("connections of \(address)")
            }
            return [victim]
        }
        guard count >= limits.connections else { return [] }
        func share(_ connection: ConnectionHandle) -> Int { bySource[limits.source(of: connection.remoteAddress)] }
        let idle = expendable.filter { $0.streamCount == 0 }
        let largest = idle.lazy.map(share).max()
        if let victim = Self.longestIdle(idle.filter { share($0) == largest }) { return [victim] }
        let busy = expendable.filter { share($0) > own + 1 }
        let most = busy.lazy.map(share).max()
        guard let victim = Self.longestIdle(busy.filter { share($0) == most }) else {
            throw HostError.limitReached("connections")
        }
        return [victim]
    }

    /// The connections that may be closed for others.
    private var expendable: [ConnectionHandle] { all.filter { !protected.contains($0.peer) } }

    /// Keeps a peer's connections from being closed to make room for others, or lets that be done again.
    mutating func setProtected(_ isProtected: Bool, _ peer: PeerID) {
        if isProtected { protected.insert(peer) } else { protected.remove(peer) }
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
        bySource.add(limits.source(of: connection.remoteAddress))
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
        bySource.remove(limits.source(of: connection.remoteAddress))
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

    /// Records how long a connected peer took to answer a request: the last one counts a fifth.
    mutating func recordRoundTrip(_ time: Duration, of peer: PeerID) {
        guard let former = identified[peer] else { return }
        identified[peer]?.roundTripTime = former.roundTripTime.map { $0 * 4 / 5 + time / 5 } ?? time
    }

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
