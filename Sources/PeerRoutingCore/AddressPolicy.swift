/// Which addresses received from peers may be dialled, passed on, or returned as a provider's.
///
/// A peer may claim any address, and mirrors will connect to it on their registry port. So only what can be a node's address in a cluster is accepted: a TCP listener at a unicast IP address that is
/// neither loopback, unspecified, link-local (which covers the metadata services of clouds), multicast nor broadcast,
/// and lies within ``allowedNetworks`` when any are given. Names from peers are never resolved. Everything
/// else is dropped address by address; a provider record left without an address is refused.
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
