import PeerRoutingCore

/// A peer's identity at one address: what is dialled, pooled, asked and counted.
///
/// Identity and address belong together only as far as some node has claimed it. So failures at an address count against
/// this pair, not against the identity's other addresses.
struct PeerEndpoint: Hashable, Sendable, CustomStringConvertible {
    let id: PeerID
    let address: IPAddress

    var description: String { "\(id)@\(address)" }
}
