/// Which addresses received from peers may be dialled, passed on, or returned as a provider's.
///
/// A peer may claim any address, and mirrors will connect to it on their registry port. So only what can be a node's address in a cluster is accepted: a TCP listener at a unicast IP address that is
/// neither loopback, unspecified, link-local, multicast nor broadcast, is no metadata service of a cloud and no form that
/// a gateway translates to another address (``refusedNetworks``), and lies within ``allowedNetworks`` when any are given.
/// Names from peers are never resolved. Everything else is dropped address by address; a provider record left without an
/// address is refused.
public struct AddressPolicy: Hashable, Sendable {
    /// Accept loopback addresses, for tests on one machine.
    public var allowsLoopback: Bool
    /// When not empty, only addresses within these networks are accepted.
    public var allowedNetworks: [IPNetwork]
    /// Accept what a peer claims of itself, in records and in identify, only for the address its connection comes from.
    ///
    /// Stricter than Go nodes are: where connections between nodes are translated (SNAT), the address seen is not the
    /// provider's, and the record is refused.
    public var requiresObservedAddress: Bool

    /// Where no node is, whatever is allowed: metadata services of clouds that are not at link-local addresses, and forms
    /// that translate to any IPv4 address (NAT64, RFC 6052 and RFC 8215; Teredo, RFC 4380; 6to4, RFC 3056; IPv4-compatible,
    /// RFC 4291 section 2.5.5.1), reserved space (RFC 1122 section 3.2.1.3, RFC 1112 section 4).
    public static let refusedNetworks: [IPNetwork] = [
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
        "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "::/96", "0.0.0.0/8", "240.0.0.0/4",
    ].compactMap { IPNetwork($0) }

    /// Private networks (RFC 1918, RFC 6598, RFC 4193), in which most clusters are.
    public static let privateNetworks: [IPNetwork] = [
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7",
    ].compactMap { IPNetwork($0) }

    /// The networks in which the peers of a node with these interfaces are believed to be: private ones and its own. None
    /// in particular when it has an address that is not private: then its peers may be anywhere too.
    public static func networks(ofInterfaces interfaces: [IPNetwork]) -> [IPNetwork] {
        let own = interfaces.filter { !$0.address.isLoopback && !$0.address.isLinkLocal }
        guard own.allSatisfy({ $0.address.isPrivate }) else { return [] }
        return privateNetworks + own.filter { network in !privateNetworks.contains { $0.contains(network.address) } }
    }

    /// The most addresses kept of one peer; those beyond are passed over.
    public static let maximumAddresses = 16

    /// Makes a policy; without arguments the one for production.
    public init(
        allowsLoopback: Bool = false, allowedNetworks: [IPNetwork] = [], requiresObservedAddress: Bool = false
    ) {
        self.allowsLoopback = allowsLoopback
        self.allowedNetworks = allowedNetworks
        self.requiresObservedAddress = requiresObservedAddress
    }

    /// Whether a node may be at `address`.
    public func accepts(_ address: IPAddress) -> Bool {
        if address.isUnspecified || address.isMulticast || address.isBroadcast || address.isLinkLocal { return false }
        if address.isLoopback { return allowsLoopback }
        if Self.refusedNetworks.contains(where: { $0.contains(address) }) { return false }
        return allowedNetworks.isEmpty || allowedNetworks.contains { $0.contains(address) }
    }

    /// The acceptable ones of `addresses`, at most ``maximumAddresses``, without duplicates.
    package func filter(_ addresses: [Multiaddr], observed: IPAddress? = nil) -> [Multiaddr] {
        var result: [Multiaddr] = []
        for address in addresses where result.count < Self.maximumAddresses {
            guard let endpoint = address.tcpEndpoint, endpoint.port != 0, accepts(endpoint.address),
                !result.contains(address)
            else { continue }
            if let observed, endpoint.address.unmapped != observed.unmapped { continue }
            result.append(address)
        }
        return result
    }
}
