import NIOCore
import NIOPosix

/// What the listeners and the machine's interfaces make of our addresses.
struct ListenAddresses: Sendable {
    /// The endpoints bound.
    var bound: [TCPEndpoint] = []
    /// The addresses of this machine's interfaces.
    var interfaces: Set<IPAddress> = []
    /// Those of them on devices with very many, which are hardly the machine's own: `kube-ipvs0` has one for every
    /// service of a cluster.
    var crowded: Set<IPAddress> = []

    /// A device with more addresses is crowded: a peer that keeps as many should keep the machine's own.
    static let addressesPerDevice = AddressPolicy.maximumAddresses

    /// The machine's addresses now; empty when the system does not tell.
    static func currentInterfaces() -> (all: Set<IPAddress>, crowded: Set<IPAddress>) {
        let devices = (try? System.enumerateDevices()) ?? []
        return tellingApart(
            devices.compactMap { device in device.address.flatMap { IPAddress($0) }.map { (device.name, $0) } })
    }

    /// Tells the addresses of crowded devices from the others.
    static func tellingApart(
        _ addresses: [(device: String, address: IPAddress)]
    ) -> (all: Set<IPAddress>, crowded: Set<IPAddress>) {
        let devices = Dictionary(grouping: addresses, by: \.device).mapValues { Set($0.map(\.address)) }
        let crowded = devices.values.filter { $0.count > addressesPerDevice }
        let others = devices.values.filter { $0.count <= addressesPerDevice }
        let own = Set(others.joined())
        let rest = Set(crowded.joined()).subtracting(own)
        return (own.union(rest), rest)
    }

    /// What peers are told: the addresses bound, for wildcards all of the family's interface addresses, less those
    /// that mean nothing elsewhere. Always in the same order, the most useful first, as not all may find room.
    func advertised(includingLoopback: Bool) -> [Multiaddr] {
        var result: [Multiaddr] = []
        var seen: Set<Multiaddr> = []
        func add(_ endpoint: TCPEndpoint, at addresses: some Sequence<IPAddress>) {
            for address in addresses
            where !address.isUnspecified && !address.isLinkLocal && !address.isMulticast && !address.isBroadcast
                && (includingLoopback || !address.isLoopback)
            {
                let multiaddr = Multiaddr(address, tcpPort: endpoint.port)
                if seen.insert(multiaddr).inserted { result.append(multiaddr) }
            }
        }
        func add(_ endpoint: TCPEndpoint, atThoseOf interfaces: Set<IPAddress>) {
            add(endpoint, at: interfaces.filter { $0.isV6 == endpoint.address.isV6 }.sorted())
        }
        let own = interfaces.subtracting(crowded)
        for endpoint in bound {
            if endpoint.address.isUnspecified {
                add(endpoint, atThoseOf: own)
            } else {
                add(endpoint, at: [endpoint.address])
            }
        }
        for endpoint in bound where endpoint.address.isUnspecified { add(endpoint, atThoseOf: crowded) }
        return result
    }

    /// Whether a dial there would reach ourselves.
    func isOwn(_ endpoint: TCPEndpoint) -> Bool {
        bound.contains { own in
            own.port == endpoint.port
                && (own.address == endpoint.address
                    || own.address.isUnspecified && own.address.isV6 == endpoint.address.isV6
                        && (endpoint.address.isLoopback || interfaces.contains(endpoint.address)))
        }
    }

    /// The address to dial from: that of a listener bound to one address, so that peers see the address they can dial.
    func source(for destination: IPAddress) -> IPAddress? {
        bound.map(\.address).first { own in
            !own.isUnspecified && own.isV6 == destination.isV6 && own.isLoopback == destination.isLoopback
        }
    }
}
