/// An address of a TCP listener, as taken from a multiaddr this module can dial.
public struct TCPEndpoint: Hashable, Sendable, CustomStringConvertible {
    /// The listener's address.
    public let address: IPAddress
    /// The listener's port.
    public let port: UInt16
    /// The interface an IPv6 link-local address is meant for.
    public let zone: String?

    /// Makes an endpoint.
    public init(_ address: IPAddress, port: UInt16, zone: String? = nil) {
        self.address = address
        self.port = port
        self.zone = zone
    }

    /// `ADDRESS:PORT`, IPv6 addresses in brackets.
    public var description: String {
        address.isV6 ? "[\(address)\(zone.map { "%\($0)" } ?? "")]:\(port)" : "\(address):\(port)"
    }
}

extension Multiaddr {
    /// Where to connect, when this is `[/ip6zone/Z]/ip4|ip6/A/tcp/P[/p2p/ID]` and nothing else.
    public var tcpEndpoint: TCPEndpoint? {
        var rest = components[...]
        var zone: String?
        if let first = rest.first, first.type == .ip6zone {
            zone = String(decoding: first.value, as: UTF8.self)
            rest.removeFirst()
            guard rest.first?.type == .ip6 else { return nil }
        }
        guard let ip = rest.popFirst(), ip.type == .ip4 || ip.type == .ip6, let address = IPAddress(bytes: ip.value),
            let tcp = rest.popFirst(), tcp.type == .tcp,
            rest.isEmpty || (rest.count == 1 && rest.first?.type == .p2p)
        else { return nil }
        return TCPEndpoint(address, port: tcp.number, zone: zone)
    }

    /// A host name to resolve and the port there, when this is `/dns|dns4|dns6/NAME/tcp/P[/p2p/ID]` and nothing else.
    public var dnsEndpoint: (name: String, port: UInt16, family: DNSFamily)? {
        let parts = components
        guard parts.count == 2 || (parts.count == 3 && parts[2].type == .p2p), parts[1].type == .tcp else { return nil }
        let family: DNSFamily
        switch parts[0].type {
        case .dns: family = .any
        case .dns4: family = .v4
        case .dns6: family = .v6
        default: return nil
        }
        return (String(decoding: parts[0].value, as: UTF8.self), parts[1].number, family)
    }

    /// Which addresses of a name are wanted.
    public enum DNSFamily: Hashable, Sendable {
        /// Both families.
        case any
        /// IPv4 only.
        case v4
        /// IPv6 only.
        case v6
    }

    /// The address of the first component when that is an IP address (a zone in front is passed over).
    public var ipAddress: IPAddress? {
        let parts = components
        guard let ip = parts.first?.type == .ip6zone ? parts.dropFirst().first : parts.first,
            ip.type == .ip4 || ip.type == .ip6
        else { return nil }
        return IPAddress(bytes: ip.value)
    }

    /// The peer named by a `/p2p/ID` at the end.
    public var peerID: PeerID? {
        guard let last = components.last, last.type == .p2p else { return nil }
        return try? PeerID(bytes: last.value)
    }

    /// This address without a `/p2p/ID` at its end; nil when nothing else is left.
    public var withoutPeerID: Multiaddr? {
        let parts = components
        guard parts.last?.type == .p2p else { return self }
        return parts.count == 1 ? nil : Multiaddr(parts.dropLast())
    }

    /// This address with `/p2p/ID` at its end, in place of one that is there.
    public func withPeerID(_ peer: PeerID) -> Multiaddr {
        let parts = components
        let kept = parts.last?.type == .p2p ? parts.dropLast() : parts[...]
        return Multiaddr(kept + [MultiaddrComponent(type: .p2p, uncheckedValue: peer.bytes)])
    }

    /// What a peer's list of addresses means for that peer: an address that ends in the peer's own ID loses it, one
    /// that ends in another's is not an address of this peer (nil).
    public func strippingPeerID(_ peer: PeerID) -> Multiaddr? {
        guard let named = components.last, named.type == .p2p else { return self }
        return named.value.elementsEqual(peer.bytes) ? withoutPeerID : nil
    }
}
