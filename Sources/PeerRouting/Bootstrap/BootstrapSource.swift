/// Where the first peers' addresses come from.
public protocol BootstrapSource: Sendable {
    /// Looks the candidates up anew. The node itself may be among them.
    ///
    /// - Throws: When they cannot be had now; the description goes to the log, and the look-up is repeated.
    func candidates() async throws -> [BootstrapCandidate]

    /// Whether it names nobody on purpose, so that this node is the first of its cluster. Elsewhere no candidate at all means
    /// that the look-up went wrong, as the node itself should be among them. False by default.
    var namesNobody: Bool { get }
}

extension BootstrapSource {
    /// False: an empty list is a failure.
    public var namesNobody: Bool { false }
}

/// Why candidates could not be had.
public struct BootstrapError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What failed, with the input that failed.
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// A fixed list of peers.
public struct StaticBootstrapSource: BootstrapSource {
    /// The peers, all of which are tried.
    public let peers: [BootstrapCandidate]

    /// Takes multiaddrs with a peer ID at their end; several of one peer are joined.
    ///
    /// An address that is a name (`/dns4/NAME/tcp/PORT/p2p/ID`) is resolved each time.
    ///
    /// - Throws: ``BootstrapError`` naming an address without a peer ID or with nothing in front of it.
    public init(_ addresses: [Multiaddr]) throws {
        var peers: [BootstrapCandidate] = []
        for address in addresses {
            guard let id = address.peerID, let rest = address.withoutPeerID else {
                throw BootstrapError("static bootstrap peer \(address) must be an address that ends in /p2p/ID")
            }
            if let index = peers.firstIndex(where: { $0.id == id }) {
                peers[index].addresses.append(rest)
            } else {
                peers.append(BootstrapCandidate(id: id, addresses: [rest]))
            }
        }
        self.peers = peers
    }

    /// Whether the list is empty, as for a cluster's first node.
    public var namesNobody: Bool { peers.isEmpty }

    /// The list, names in it resolved; a name that cannot be resolved is left out.
    public func candidates() async throws -> [BootstrapCandidate] {
        var result: [BootstrapCandidate] = []
        for var peer in peers {
            var addresses: [Multiaddr] = []
            for address in peer.addresses {
                guard let name = address.dnsEndpoint else {
                    addresses.append(address)
                    continue
                }
                let families: [AddressFamily] =
                    switch name.family {
                    case .any: [.v4, .v6]
                    case .v4: [.v4]
                    case .v6: [.v6]
                    }
                for family in families {
                    let found = (try? await NameResolver.addresses(of: name.name, family: family)) ?? []
                    addresses += found.map { Multiaddr($0, tcpPort: name.port) }
                }
            }
            peer.addresses = addresses
            result.append(peer)
        }
        return result
    }
}
