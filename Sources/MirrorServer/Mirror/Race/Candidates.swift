import PeerRoutingCore

/// The peers that may be asked for the content of one transfer: those found, without those ruled out.
///
/// A value type without I/O.
struct Candidates: Sendable {
    /// Most addresses of one peer that are only claimed; further ones are passed over.
    static let claimedAddressLimit = 4

    /// Whether the router knows the address of each one found first-hand.
    private var found: [PeerEndpoint: Bool] = [:]
    /// Peers of which an address is known first-hand: their claimed addresses are a last resort.
    private var observedPeers: Set<PeerID> = []
    /// Their bytes were part of a body that was wrong, or they stalled.
    private var excluded: Set<PeerEndpoint> = []
    /// They ended a body early or were slow. They answer as fast as the first time, so that they would win the next race.
    private var truncated: Set<PeerEndpoint> = []
    /// The peers whose bytes are part of the body, in order.
    private(set) var bodySources: [PeerEndpoint] = []
    /// Attempts that failed, in all races.
    private(set) var failedAttempts = 0

    /// Adds those of the peers found that may be asked, each address by itself.
    ///
    /// - Parameters:
    ///   - policy: the addresses that may be dialled.
    ///   - isEligible: whether an address known first-hand, or else claimed, may be asked for this content, as far as other
    ///     transfers know.
    /// - Returns: the ones added, in order.
    mutating func add(
        _ peers: [Peer], localPeer: PeerID, policy: AddressPolicy,
        isEligible: (_ endpoint: PeerEndpoint, _ isObserved: Bool) -> Bool
    ) -> [PeerEndpoint] {
        var added: [PeerEndpoint] = []
        for peer in peers where peer.id != localPeer {
            let observed = peer.addresses.filter(peer.observedAddresses.contains)
            let claimed = peer.addresses.filter { !observed.contains($0) }
            if !observed.isEmpty { observedPeers.insert(peer.id) }
            for (index, address) in (observed + claimed.prefix(Self.claimedAddressLimit)).enumerated() {
                let (endpoint, isObserved) = (PeerEndpoint(id: peer.id, address: address), index < observed.count)
                guard policy.accepts(address), !excluded.contains(endpoint), isEligible(endpoint, isObserved) else {
                    continue
                }
                found[endpoint] = isObserved
                added.append(endpoint)
            }
        }
        return added
    }

    /// Whether the router knows the address of the peer first-hand.
    func isObserved(_ peer: PeerEndpoint) -> Bool { found[peer] ?? false }

    /// The priority class of a candidate.
    ///
    /// - Parameter isDeprioritized: whether it failed lately in other transfers.
    func preference(of peer: PeerEndpoint, isDeprioritized: Bool) -> RaceMachine<PeerEndpoint>.Preference {
        if truncated.contains(peer) { return .lastResort }
        if !isObserved(peer), observedPeers.contains(peer.id) { return .lastResort }
        return isDeprioritized ? .deprioritized : .normal
    }

    /// Whether a candidate may take over from `source`, which sends the body slowly: it is another node, and has not been
    /// slow itself.
    func mayTakeOver(_ peer: PeerEndpoint, from source: PeerEndpoint) -> Bool {
        peer.id != source.id && peer.address != source.address && !truncated.contains(peer)
    }

    /// Whether at most one candidate has not failed.
    var isLastOne: Bool { found.count - failedAttempts <= 1 }

    /// An attempt failed.
    mutating func attemptFailed() { failedAttempts += 1 }

    /// The bytes of this peer are part of the body from now on.
    mutating func addBodySource(_ peer: PeerEndpoint) {
        if !bodySources.contains(peer) { bodySources.append(peer) }
    }

    /// The peer ended the body early, or was slow: it is asked again only as a last resort.
    mutating func bodyTruncated(by peer: PeerEndpoint) { truncated.insert(peer) }

    /// The peer is not asked again.
    mutating func exclude(_ peer: PeerEndpoint) { excluded.insert(peer) }

    /// The body is dropped: those that contributed to it are not asked again.
    mutating func excludeBodySources() {
        excluded.formUnion(bodySources)
        bodySources = []
    }

    /// What a transfer takes over that continues the same body for another client.
    func adopted() -> Candidates {
        var copy = Candidates()
        copy.excluded = excluded
        copy.bodySources = bodySources
        return copy
    }
}
