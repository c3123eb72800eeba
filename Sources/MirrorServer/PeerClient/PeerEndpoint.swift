import PeerRoutingCore

/// A peer's identity at one address: what is dialled, pooled, asked and counted.
///
/// Identity and address belong together only as far as some node has claimed it. So failures at an address count against
/// this pair, not against the identity's other addresses.
struct PeerEndpoint: Hashable, Sendable, CustomStringConvertible {
    let id: PeerID
    let address: IPAddress
    /// Computed once: a request looks its peers up in tables dozens of times.
    private let hash: Int

    init(id: PeerID, address: IPAddress) {
        self.id = id
        self.address = address
        var hasher = Hasher()
        hasher.combine(id)
        hasher.combine(address)
        hash = hasher.finalize()
    }

    var description: String { "\(id)@\(address)" }

    func hash(into hasher: inout Hasher) { hasher.combine(hash) }

    static func == (left: PeerEndpoint, right: PeerEndpoint) -> Bool {
        left.hash == right.hash && left.address == right.address && left.id == right.id
    }
}
