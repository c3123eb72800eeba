/// A self-describing network address such as `/ip4/10.1.2.3/tcp/5001`.
///
/// The whole table of protocols is understood, so that addresses of other transports can be parsed and skipped; those
/// that can be dialled have a ``tcpEndpoint``.
/// See https://github.com/multiformats/multiaddr
public struct Multiaddr: Hashable, Sendable, LosslessStringConvertible {
    /// Longest binary form accepted, in bytes.
    public static let maximumLength = 1024

    /// The binary form.
    public let bytes: [UInt8]

    /// Takes the binary form, all of it.
    ///
    /// - Throws: ``WireFormatError`` when it is empty, too long, cut off, or has a component of unknown kind.
    public init(bytes: some Collection<UInt8>) throws(WireFormatError) {
        guard !bytes.isEmpty else { throw WireFormatError("empty multiaddr") }
        guard bytes.count <= Self.maximumLength else {
            throw WireFormatError("multiaddr of \(bytes.count) bytes where at most \(Self.maximumLength) are accepted")
        }
        let array = Array(bytes)
        var cursor = ByteCursor(array)
        while !cursor.isAtEnd { _ = try MultiaddrComponent(from: &cursor) }
        self.bytes = array
    }

    /// Parses the text form.
    ///
    /// - Throws: ``WireFormatError`` that names the part which is wrong.
    public init(parsing text: some StringProtocol) throws(WireFormatError) {
        guard text.utf8.count <= 2 * Self.maximumLength else {
            throw WireFormatError(
                "multiaddr text longer than \(2 * Self.maximumLength): \(WireFormatError.quote(text))")
        }
        guard text.utf8.first == UInt8(ascii: "/") else {
            throw WireFormatError("multiaddr must begin with a slash: \(WireFormatError.quote(text))")
        }
        var rest = Substring(text)
        while rest.utf8.last == UInt8(ascii: "/") { rest.removeLast() }
        guard !rest.isEmpty else { throw WireFormatError("empty multiaddr") }
        var bytes: [UInt8] = []
        while !rest.isEmpty {
            rest.removeFirst()
            let name = Self.takePart(&rest)
            guard let type = MultiaddrProtocol.find(name: name) else {
                throw WireFormatError(
                    "unknown protocol \(WireFormatError.quote(name)) in multiaddr \(WireFormatError.quote(text))")
            }
            var value: Substring = ""
            if type.kind == .path {
                value = rest
                rest = ""
            } else if type.kind != .none {
                guard !rest.isEmpty else {
                    throw WireFormatError("/\(type.name) needs a value in multiaddr \(WireFormatError.quote(text))")
                }
                rest.removeFirst()
                value = Self.takePart(&rest)
            }
            try MultiaddrComponent(type: type, text: value).append(to: &bytes)
        }
        guard bytes.count <= Self.maximumLength else {
            throw WireFormatError("multiaddr of \(bytes.count) bytes where at most \(Self.maximumLength) are accepted")
        }
        self.bytes = bytes
    }

    /// The text form parsed; nil when it is not valid. Use ``init(parsing:)`` for the reason.
    public init?(_ description: String) {
        guard let address = try? Multiaddr(parsing: description) else { return nil }
        self = address
    }

    /// `/ip4|ip6/ADDRESS/tcp/PORT`, with `/p2p/ID` behind it when a peer is given.
    public init(_ address: IPAddress, tcpPort port: UInt16, peer: PeerID? = nil) {
        var components = [
            MultiaddrComponent(type: address.isV6 ? .ip6 : .ip4, uncheckedValue: address.bytes),
            MultiaddrComponent(type: .tcp, uncheckedValue: [UInt8(port >> 8), UInt8(port & 0xff)]),
        ]
        if let peer { components.append(MultiaddrComponent(type: .p2p, uncheckedValue: peer.bytes)) }
        self.init(components)
    }

    package init(_ components: some Sequence<MultiaddrComponent>) {
        var bytes: [UInt8] = []
        for component in components { component.append(to: &bytes) }
        self.bytes = bytes
    }

    /// The text form.
    public var description: String { components.map(\.text).joined() }

    /// The components in order. Valid by construction, so reading them back cannot fail.
    package var components: [MultiaddrComponent] {
        var cursor = ByteCursor(bytes)
        var components: [MultiaddrComponent] = []
        while !cursor.isAtEnd, let component = try? MultiaddrComponent(from: &cursor) { components.append(component) }
        return components
    }

    private static func takePart(_ rest: inout Substring) -> Substring {
        let end = rest.firstIndex(of: "/") ?? rest.endIndex
        defer { rest = rest[end...] }
        return rest[..<end]
    }
}

extension Multiaddr: Codable {
    /// Decodes the text form.
    public init(from decoder: any Decoder) throws {
        try self.init(parsing: try decoder.singleValueContainer().decode(String.self))
    }

    /// Encodes the text form.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

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

    /// The address family that a name is resolved to.
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
        // Nearly all addresses begin with the address itself, behind a code of one byte.
        switch bytes.first.map(UInt64.init) {
        case MultiaddrProtocol.ip4.code: return IPAddress(bytes: bytes.dropFirst().prefix(4))
        case MultiaddrProtocol.ip6.code: return IPAddress(bytes: bytes.dropFirst().prefix(16))
        default: break
        }
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
