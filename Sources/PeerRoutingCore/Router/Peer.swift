/// A node that can be asked for content: who it is and where it can be reached.
///
/// Addresses carry no port: every node of a cluster serves its registry on the same port, so the asker combines an
/// address with its own registry port.
public struct Peer: Hashable, Sendable {
    /// The node's libp2p identity.
    public var id: PeerID
    /// The node's IP addresses without duplicates, best first. May be empty when only the identity is known.
    public var addresses: [IPAddress]

    /// Describes a node.
    public init(id: PeerID, addresses: [IPAddress]) {
        self.id = id
        self.addresses = addresses
    }
}

extension Peer: CustomStringConvertible {
    /// The identity and the addresses, for logs.
    public var description: String {
        "\(id) [\(addresses.map { "\($0)" }.joined(separator: ", "))]"
    }
}
