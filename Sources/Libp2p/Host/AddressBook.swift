import NIOCore

/// Where to dial.
enum DialTarget: Hashable, Sendable, CustomStringConvertible {
    case endpoint(TCPEndpoint)
    /// A name to be resolved.
    case name(String, port: UInt16)

    /// Nil when the address cannot be dialled by this module, or must not be.
    init?(_ address: Multiaddr) {
        if let endpoint = address.tcpEndpoint {
            let ip = endpoint.address
            guard endpoint.zone == nil, endpoint.port != 0, !ip.isUnspecified, !ip.isMulticast, !ip.isLinkLocal,
                !ip.isBroadcast
            else { return nil }
            self = .endpoint(endpoint)
        } else if let (name, port, _) = address.dnsEndpoint, port != 0 {
            self = .name(name, port: port)
        } else {
            return nil
        }
    }

    var description: String {
        switch self {
        case .endpoint(let endpoint): endpoint.description
        case .name(let name, let port): "\(name):\(port)"
        }
    }
}

/// Where peers can be dialled, and which addresses are in back-off because a dial failed: the host's one record of
/// reachability. Bounded in peers, in addresses per peer, in addresses in back-off, and in time.
///
/// The back-off of an address grows with each failure, so that a peer that is away, or that limits connections, is not
/// dialled all the time. It applies to the peer expected there, not to others: a node that restarts without its key is
/// another peer at the same address.
struct AddressBook: Sendable {
    /// An address to dial.
    struct Candidate: Sendable {
        let target: DialTarget
        let address: Multiaddr
        /// The peer expected there; nil to accept any.
        let peer: PeerID?
    }

    private struct Entry: Sendable {
        /// In the order of preference, each with its expiry.
        var addresses: [(address: Multiaddr, expiry: NIODeadline)] = []
        var isConnected = false

        /// When the last of the addresses expires.
        var expiry: NIODeadline { addresses.map(\.expiry).max() ?? .distantPast }
    }

    private struct BackOffKey: Hashable {
        var target: DialTarget
        var peer: PeerID?
    }

    /// Addresses in back-off that are remembered. Beyond it those that end first are forgotten.
    static let maximumBackOffs = 4096

    private let limits: HostLimits
    private var entries: [PeerID: Entry] = [:]
    private var connectedCount = 0
    private var backOffs: [BackOffKey: (failures: Int64, until: NIODeadline)] = [:]

    init(limits: HostLimits) {
        self.limits = limits
    }

    /// Peers with addresses or a connection.
    var count: Int { entries.count }
    /// Addresses whose last dial failed.
    var backOffCount: Int { backOffs.count }

    // MARK: Addresses

    /// The addresses of a peer, best first.
    func addresses(of peer: PeerID, now: NIODeadline) -> [Multiaddr] {
        entries[peer]?.addresses.filter { $0.expiry > now }.map(\.address) ?? []
    }

    /// Adds addresses, or extends those that are there.
    mutating func remember(_ addresses: [Multiaddr], of peer: PeerID, until: NIODeadline, now: NIODeadline) {
        guard !addresses.isEmpty else { return }
        var entry = entries[peer] ?? Entry()
        for address in addresses {
            if let index = entry.addresses.firstIndex(where: { $0.address == address }) {
                entry.addresses[index].expiry = max(entry.addresses[index].expiry, until)
            } else {
                entry.addresses.append((address, until))
            }
        }
        trim(&entry, now)
        entries[peer] = entry
        makeRoom(now)
    }

    /// Sets the addresses of a connected peer to those of its identify.
    mutating func replace(_ addresses: [Multiaddr], of peer: PeerID) {
        guard var entry = entries[peer] else { return }
        entry.addresses = addresses.prefix(limits.addressesPerPeer).map { ($0, .distantFuture) }
        entries[peer] = entry
    }

    /// Keeps the peer's addresses for as long as it is connected.
    mutating func connected(_ peer: PeerID) {
        var entry = entries[peer] ?? Entry()
        if !entry.isConnected { connectedCount += 1 }
        entry.isConnected = true
        entry.addresses = entry.addresses.map { ($0.address, .distantFuture) }
        entries[peer] = entry
    }

    /// Keeps the peer's addresses for ``HostLimits/recentAddressLifetime`` more.
    mutating func disconnected(_ peer: PeerID, now: NIODeadline) {
        guard var entry = entries[peer], entry.isConnected else { return }
        connectedCount -= 1
        entry.isConnected = false
        let until = now + limits.recentAddressLifetime
        entry.addresses = entry.addresses.map { ($0.address, min($0.expiry, until)) }
        entries[peer] = entry.addresses.isEmpty ? nil : entry
        makeRoom(now)
    }

    /// Removes one address of a peer, with and without the peer's ID at its end.
    mutating func remove(_ address: Multiaddr, of peer: PeerID) {
        let plain = address.withoutPeerID
        entries[peer]?.addresses.removeAll { $0.address == address || $0.address == plain }
        removeIfEmpty(peer)
    }

    /// Removes all addresses of a peer that is not connected.
    mutating func removeAll(of peer: PeerID) {
        if entries[peer]?.isConnected == false { entries[peer] = nil }
    }

    /// Removes what has expired.
    mutating func removeExpired(now: NIODeadline) {
        for peer in Array(entries.keys) {
            entries[peer]?.addresses.removeAll { $0.expiry <= now }
            removeIfEmpty(peer)
        }
    }

    private mutating func removeIfEmpty(_ peer: PeerID) {
        if let entry = entries[peer], entry.addresses.isEmpty, !entry.isConnected { entries[peer] = nil }
    }

    private func trim(_ entry: inout Entry, _ now: NIODeadline) {
        entry.addresses.removeAll { $0.expiry <= now }
        let excess = entry.addresses.count - limits.addressesPerPeer
        if excess > 0 { entry.addresses.removeLast(excess) }
    }

    /// Removes the twentieth of the unconnected peers that would expire first, so that the search is rare.
    private mutating func makeRoom(_ now: NIODeadline) {
        guard entries.count - connectedCount > limits.addressBookPeers else { return }
        removeExpired(now: now)
        let excess = entries.count - connectedCount - limits.addressBookPeers
        guard excess > 0 else { return }
        let oldest = entries.filter { !$0.value.isConnected }.sorted { $0.value.expiry < $1.value.expiry }
        for (peer, _) in oldest.prefix(excess + limits.addressBookPeers / 20) { entries[peer] = nil }
    }

    // MARK: Dials

    /// The addresses to dial for a peer: the given ones, then those in the book, at most
    /// ``HostLimits/dialAddresses``.
    ///
    /// - Parameters:
    ///   - peer: The peer expected; nil to accept any.
    ///   - ignoringBackOff: Include addresses that are in back-off.
    ///   - isOwn: Whether an endpoint is this host's.
    /// - Throws: ``HostError/backingOff(_:)``, ``HostError/dialledSelf`` or ``HostError/noAddresses(_:)`` when no address
    ///   can be dialled.
    func candidates(
        for peer: PeerID?, given: [Multiaddr], ignoringBackOff: Bool, now: NIODeadline,
        isOwn: (TCPEndpoint) -> Bool
    ) throws(HostError) -> [Candidate] {
        var seen: Set<DialTarget> = []
        var foundOwn = false
        var foundBackOff = false
        var candidates: [Candidate] = []
        for address in given + (peer.map { addresses(of: $0, now: now) } ?? []) {
            if let peer, address.strippingPeerID(peer) == nil { continue }
            guard let target = DialTarget(address), seen.insert(target).inserted else { continue }
            let expected = peer ?? address.peerID
            if case .endpoint(let endpoint) = target, isOwn(endpoint) {
                foundOwn = true
            } else if !ignoringBackOff, isInBackOff(target, of: expected, now: now) {
                foundBackOff = true
            } else if candidates.count < limits.dialAddresses {
                candidates.append(Candidate(target: target, address: address, peer: expected))
            }
        }
        if candidates.isEmpty {
            throw foundBackOff ? HostError.backingOff(peer) : foundOwn ? .dialledSelf : .noAddresses(peer)
        }
        return candidates
    }

    /// Whether the last dial of an address failed a short while ago.
    func isInBackOff(_ target: DialTarget, of peer: PeerID?, now: NIODeadline) -> Bool {
        backOffs[BackOffKey(target: target, peer: peer)].map { $0.until > now } ?? false
    }

    /// A dial has ended with a secured connection.
    mutating func dialSucceeded(_ candidate: Candidate) {
        backOffs[BackOffKey(target: candidate.target, peer: candidate.peer)] = nil
    }

    /// A dial has failed: puts the address in back-off unless the reason lies with this host, and removes it from the
    /// book when another peer than the expected one answered.
    mutating func dialFailed(_ candidate: Candidate, _ error: HostError, now: NIODeadline) {
        switch error {
        case .dialledSelf, .limitReached, .shutDown:
            return
        case .peerMismatch:
            if let peer = candidate.peer { remove(candidate.address, of: peer) }
        default:
            break
        }
        let key = BackOffKey(target: candidate.target, peer: candidate.peer)
        let failures = min((backOffs[key]?.failures ?? 0) + 1, 1000)
        backOffs[key] = (
            failures, now + min(limits.dialBackOffBase + .seconds(failures * failures), limits.dialBackOffMaximum)
        )
        guard backOffs.count > Self.maximumBackOffs else { return }
        backOffs = backOffs.filter { $0.value.until > now }
        guard backOffs.count > Self.maximumBackOffs else { return }
        for (key, _) in backOffs.sorted(by: { $0.value.until < $1.value.until }).prefix(Self.maximumBackOffs / 10) {
            backOffs[key] = nil
        }
    }
}
