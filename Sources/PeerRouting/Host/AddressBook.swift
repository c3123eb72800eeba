import NIOCore

/// Where peers can be dialled: bounded in peers, in addresses a peer, and in time.
struct AddressBook: Sendable {
    private struct Entry: Sendable {
        /// In the order of preference, each with its end.
        var addresses: [(address: Multiaddr, until: NIODeadline)] = []
        var isConnected = false

        /// When the last of the addresses ends.
        var until: NIODeadline { addresses.map(\.until).max() ?? .distantPast }
    }

    private let limits: HostLimits
    private var entries: [PeerID: Entry] = [:]
    private var connectedCount = 0

    init(limits: HostLimits) {
        self.limits = limits
    }

    /// Peers with addresses or a connection.
    var count: Int { entries.count }

    /// Adds addresses, or prolongs those known.
    mutating func remember(_ addresses: [Multiaddr], of peer: PeerID, until: NIODeadline, now: NIODeadline) {
        guard !addresses.isEmpty else { return }
        var entry = entries[peer] ?? Entry()
        for address in addresses {
            if let index = entry.addresses.firstIndex(where: { $0.address == address }) {
                entry.addresses[index].until = max(entry.addresses[index].until, until)
            } else {
                entry.addresses.append((address, until))
            }
        }
        trim(&entry, now)
        entries[peer] = entry
        makeRoom(now)
    }

    /// What identify told of a connected peer takes the place of everything else.
    mutating func replace(_ addresses: [Multiaddr], of peer: PeerID, now: NIODeadline) {
        guard var entry = entries[peer] else { return }
        entry.addresses = addresses.prefix(limits.addressesPerPeer).map { ($0, .distantFuture) }
        entries[peer] = entry
    }

    mutating func connected(_ peer: PeerID) {
        var entry = entries[peer] ?? Entry()
        if !entry.isConnected { connectedCount += 1 }
        entry.isConnected = true
        entry.addresses = entry.addresses.map { ($0.address, .distantFuture) }
        entries[peer] = entry
    }

    mutating func disconnected(_ peer: PeerID, now: NIODeadline) {
        guard var entry = entries[peer], entry.isConnected else { return }
        connectedCount -= 1
        entry.isConnected = false
        let until = now + limits.recentAddressLifetime
        entry.addresses = entry.addresses.map { ($0.address, min($0.until, until)) }
        entries[peer] = entry.addresses.isEmpty ? nil : entry
        makeRoom(now)
    }

    func addresses(of peer: PeerID, now: NIODeadline) -> [Multiaddr] {
        entries[peer]?.addresses.filter { $0.until > now }.map(\.address) ?? []
    }

    mutating func forget(_ address: Multiaddr, of peer: PeerID) {
        entries[peer]?.addresses.removeAll { $0.address == address }
        dropIfEmpty(peer)
    }

    /// Forgets a peer that is not connected.
    mutating func forget(_ peer: PeerID) {
        if entries[peer]?.isConnected == false { entries[peer] = nil }
    }

    /// Drops what has ended.
    mutating func sweep(now: NIODeadline) {
        for peer in Array(entries.keys) {
            entries[peer]?.addresses.removeAll { $0.until <= now }
            dropIfEmpty(peer)
        }
    }

    private mutating func dropIfEmpty(_ peer: PeerID) {
        if let entry = entries[peer], entry.addresses.isEmpty, !entry.isConnected { entries[peer] = nil }
    }

    private func trim(_ entry: inout Entry, _ now: NIODeadline) {
        entry.addresses.removeAll { $0.until <= now }
        let excess = entry.addresses.count - limits.addressesPerPeer
        if excess > 0 { entry.addresses.removeLast(excess) }
    }

    /// Drops the twentieth of the unconnected peers that would end first, so that the search is rare.
    private mutating func makeRoom(_ now: NIODeadline) {
        guard entries.count - connectedCount > limits.addressBookPeers else { return }
        sweep(now: now)
        let excess = entries.count - connectedCount - limits.addressBookPeers
        guard excess > 0 else { return }
        let oldest = entries.filter { !$0.value.isConnected }.sorted { $0.value.until < $1.value.until }
        for (peer, _) in oldest.prefix(excess + limits.addressBookPeers / 20) { entries[peer] = nil }
    }
}

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

/// Lets a peer's addresses that failed rest, longer each time, so that a peer that is away, or that limits connections,
/// is not hammered.
///
/// An address rests for the peer that was expected there, not for others: a node that starts again without its key is
/// somebody else at the same address.
struct DialBackOff: Sendable {
    private struct Key: Hashable {
        var target: DialTarget
        /// Nil when whoever answers was wanted.
        var peer: PeerID?
    }

    /// Addresses remembered.
    static let maximumEntries = 4096

    private let base: TimeAmount
    private let maximum: TimeAmount
    private var entries: [Key: (failures: Int64, until: NIODeadline)] = [:]

    init(limits: HostLimits) {
        base = limits.dialBackOffBase
        maximum = limits.dialBackOffMaximum
    }

    var count: Int { entries.count }

    /// Whether a failed dial is a reason to let the address rest.
    ///
    /// It is not when the reason lies with this host.
    static func counts(_ error: any Error) -> Bool {
        switch error {
        case HostError.dialledSelf, HostError.limitReached, HostError.shutDown: false
        default: true
        }
    }

    func isResting(_ target: DialTarget, of peer: PeerID?, now: NIODeadline) -> Bool {
        entries[Key(target: target, peer: peer)].map { $0.until > now } ?? false
    }

    mutating func failed(_ target: DialTarget, of peer: PeerID?, now: NIODeadline) {
        let key = Key(target: target, peer: peer)
        let failures = min((entries[key]?.failures ?? 0) + 1, 1000)
        let rest = min(base + .seconds(failures * failures), maximum)
        entries[key] = (failures, now + rest)
        guard entries.count > Self.maximumEntries else { return }
        entries = entries.filter { $0.value.until > now }
        guard entries.count > Self.maximumEntries else { return }
        for (key, _) in entries.sorted(by: { $0.value.until < $1.value.until }).prefix(Self.maximumEntries / 10) {
            entries[key] = nil
        }
    }

    mutating func succeeded(_ target: DialTarget, of peer: PeerID?) {
        entries[Key(target: target, peer: peer)] = nil
    }
}
