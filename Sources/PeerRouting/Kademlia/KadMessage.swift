/// A message of the Kademlia protocol `/spegel/kad/1.0.0`.
package struct KadMessage: Hashable, Sendable {
    /// The protocol under which these messages travel.
    package static let protocolID = "/spegel/kad/1.0.0"

    /// What a message asks for or answers.
    package enum Kind: UInt64, Sendable {
        case putValue = 0
        case getValue = 1
        case addProvider = 2
        case getProviders = 3
        case findNode = 4
        case ping = 5
    }

    package var kind: Kind
    /// A peer ID or a multihash, or any other bytes: the position is their hash. Empty in answers to FIND_NODE.
    package var key: [UInt8]
    package var closerPeers: [KadContact]
    package var providerPeers: [KadContact]

    package init(
        kind: Kind, key: [UInt8] = [], closerPeers: [KadContact] = [], providerPeers: [KadContact] = []
    ) {
        self.kind = kind
        self.key = key
        self.closerPeers = closerPeers
        self.providerPeers = providerPeers
    }

    static func findNode(_ key: [UInt8]) -> KadMessage { KadMessage(kind: .findNode, key: key) }
    static func getProviders(_ key: [UInt8]) -> KadMessage { KadMessage(kind: .getProviders, key: key) }
}

/// A peer as Kademlia speaks of it: identity, position and the addresses it is said to have.
package struct KadContact: Hashable, Sendable {
    package let id: PeerID
    /// The position of `id`, hashed once when the contact is made.
    let key: KadKey
    package var addresses: [Multiaddr]
    /// Whether the sender of the message said that it is connected to this peer.
    var isConnected = false

    package init(id: PeerID, addresses: [Multiaddr] = [], isConnected: Bool = false) {
        self.id = id
        self.key = KadKey(hashing: id.bytes)
        self.addresses = addresses
        self.isConnected = isConnected
    }

    init(id: PeerID, key: KadKey, addresses: [Multiaddr], isConnected: Bool = false) {
        self.id = id
        self.key = key
        self.addresses = addresses
        self.isConnected = isConnected
    }
}
