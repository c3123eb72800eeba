import PeerRoutingCore

/// The peers that may be asked for the content of one transfer: those found, without those ruled out.
///
/// A value type without I/O.
struct Candidates: Sendable {
    private var peers: [PeerID: Peer] = [:]
    /// Their bytes were part of a body that was wrong.
    private var excludedPeers: Set<PeerID> = []
    /// They ended a body early. They answer as fast as the first time, so that they would win the next race.
    private var truncatedPeers: Set<PeerID> = []
    /// The peers whose bytes are part of the body, in order.
    private(set) var bodySources: [PeerID] = []
    /// Attempts that failed, in all races.
    private(set) var failedAttempts = 0

    /// Adds those of the peers found that may be asked.
    ///
    /// - Parameter isEligible: whether a peer may be asked for this content, as far as other transfers know.
    /// - Returns: the ones added, in order.
    mutating func add(_ found: [Peer], localPeer: PeerID, isEligible: (PeerID) -> Bool) -> [PeerID] {
        let added = found.filter { peer in
            peer.id != localPeer && !peer.addresses.isEmpty && !excludedPeers.contains(peer.id) && isEligible(peer.id)
        }
        for peer in added { peers[peer.id] = peer }
        return added.map(\.id)
    }

    subscript(id: PeerID) -> Peer? { peers[id] }

    /// The priority class of a candidate.
    ///
    /// - Parameter isDeprioritized: whether it failed lately in other transfers.
    func preference(of peer: PeerID, isDeprioritized: Bool) -> RaceMachine<PeerID>.Preference {
        if truncatedPeers.contains(peer) { return .lastResort }
        return isDeprioritized ? .deprioritized : .normal
    }

    /// Whether at most one candidate has not failed.
    var isLastOne: Bool { peers.count - failedAttempts <= 1 }

    /// An attempt failed.
    mutating func attemptFailed() { failedAttempts += 1 }

    /// The bytes of this peer are part of the body from now on.
    mutating func addBodySource(_ peer: PeerID) {
        if !bodySources.contains(peer) { bodySources.append(peer) }
    }

    /// The peer ended the body early: it is asked again only as a last resort.
    mutating func truncated(by peer: PeerID) { truncatedPeers.insert(peer) }

    /// The body is dropped: those that contributed to it are not asked again.
    mutating func excludeBodySources() {
        excludedPeers.formUnion(bodySources)
        bodySources = []
    }

    /// What a transfer takes over that continues the same body for another client.
    func adopted() -> Candidates {
        var copy = Candidates()
        copy.excludedPeers = excludedPeers
        copy.bodySources = bodySources
        return copy
    }
}
