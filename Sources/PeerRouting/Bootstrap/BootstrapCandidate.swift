/// A node by which to join a cluster.
public struct BootstrapCandidate: Hashable, Sendable {
    /// Who it is, when that is known; else it is learnt on connecting.
    public var id: PeerID?
    /// Where it is. An address that is only an IP address is completed with the node's own router port.
    public var addresses: [Multiaddr]

    /// Names a candidate.
    public init(id: PeerID?, addresses: [Multiaddr]) {
        self.id = id
        self.addresses = addresses
    }

    /// The candidate that a multiaddr with or without `/p2p/ID` at its end describes.
    public init(_ address: Multiaddr) {
        self.init(id: address.peerID, addresses: address.withoutPeerID.map { [$0] } ?? [])
    }

    /// This candidate with `port` where an address has none, or nil when it is the node itself: its ID, or an address
    /// of its own.
    package func completed(port: UInt16, own: PeerID, ownAddresses: [Multiaddr]) -> BootstrapCandidate? {
        guard id != own else { return nil }
        let completed = addresses.map { address in
            if address.tcpEndpoint == nil, let ip = address.ipAddress, address == Multiaddr(onlyIP: ip) {
                return Multiaddr(ip, tcpPort: port)
            }
            return address
        }
        let ours = Set(ownAddresses.compactMap(\.tcpEndpoint))
        guard !completed.contains(where: { $0.tcpEndpoint.map(ours.contains) ?? false }) else { return nil }
        return BootstrapCandidate(id: id, addresses: completed)
    }
}

extension Multiaddr {
    /// `/ip4/A` or `/ip6/A` alone, as a bootstrap record without a port has it.
    init?(onlyIP address: IPAddress) {
        self.init("/\(address.isV6 ? "ip6" : "ip4")/\(address)")
    }
}
