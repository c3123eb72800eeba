import NIOCore
import NIOPosix

/// The addresses of this machine's interfaces.
struct InterfaceAddresses: Hashable, Sendable {
    /// All of them.
    var all: Set<IPAddress> = []
    /// Those of interfaces with very many, which are rarely the machine's own: `kube-ipvs0` has one for every service of
    /// a cluster.
    var lowPriority: Set<IPAddress> = []

    /// An interface with more addresses has low priority: a peer that keeps as many should keep the machine's own.
    static let addressesPerInterface = AddressPolicy.maximumAddresses

    /// The addresses now; none when the system does not list them.
    static func current() -> InterfaceAddresses {
        let devices = (try? System.enumerateDevices()) ?? []
        return classify(
            devices.compactMap { device in device.address.flatMap { IPAddress($0) }.map { (device.name, $0) } })
    }

    /// Separates the addresses of interfaces with very many from the others.
    static func classify(_ addresses: [(interface: String, address: IPAddress)]) -> InterfaceAddresses {
        let interfaces = Dictionary(grouping: addresses, by: \.interface).mapValues { Set($0.map(\.address)) }
        let own = Set(interfaces.values.filter { $0.count <= addressesPerInterface }.joined())
        let many = Set(interfaces.values.filter { $0.count > addressesPerInterface }.joined())
        return InterfaceAddresses(all: own.union(many), lowPriority: many.subtracting(own))
    }
}

/// Where this host listens, and the addresses it advertises because of that.
struct ListenAddresses: Sendable {
    /// The endpoints bound, with their real ports.
    private(set) var endpoints: [TCPEndpoint]
    private var interfaces: InterfaceAddresses

    /// What peers get to know, the most useful first.
    private(set) var advertised: [Multiaddr] = []
    /// Counts the changes of ``advertised``.
    private(set) var version: UInt64 = 0

    init(endpoints: [TCPEndpoint] = [], interfaces: InterfaceAddresses = InterfaceAddresses()) {
        self.endpoints = endpoints
        self.interfaces = interfaces
    }

    /// Adds an endpoint that has been bound.
    mutating func add(_ endpoint: TCPEndpoint) { endpoints.append(endpoint) }

    /// Sets the machine's addresses and derives ``advertised``.
    ///
    /// - Parameters:
    ///   - announced: Advertised instead of what follows from endpoints and interfaces.
    ///   - room: Bytes that an identify message has for addresses.
    /// - Returns: True when ``advertised`` has changed.
    mutating func update(
        _ interfaces: InterfaceAddresses, announced: [Multiaddr]?, includingLoopback: Bool, room: Int
    ) -> Bool {
        self.interfaces = interfaces
        let addresses = IdentifyMessage.fitting(
            announced ?? reachable(includingLoopback: includingLoopback), room: room)
        guard addresses != advertised else { return false }
        advertised = addresses
        version += 1
        return true
    }

    /// The addresses bound, for wildcards all of the family's interface addresses, less those that mean nothing on
    /// another machine. Always in the same order, the most useful first, as not all may fit.
    func reachable(includingLoopback: Bool) -> [Multiaddr] {
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
        let own = interfaces.all.subtracting(interfaces.lowPriority)
        for endpoint in endpoints {
            if endpoint.address.isUnspecified {
                add(endpoint, atThoseOf: own)
            } else {
                add(endpoint, at: [endpoint.address])
            }
        }
        for endpoint in endpoints where endpoint.address.isUnspecified {
            add(endpoint, atThoseOf: interfaces.lowPriority)
        }
        return result
    }

    /// Whether a dial of `endpoint` would reach this host itself.
    func isOwn(_ endpoint: TCPEndpoint) -> Bool {
        endpoints.contains { own in
            own.port == endpoint.port
                && (own.address == endpoint.address
                    || own.address.isUnspecified && own.address.isV6 == endpoint.address.isV6
                        && (endpoint.address.isLoopback || interfaces.all.contains(endpoint.address)))
        }
    }

    /// The address to dial from: that of a listener bound to one address, so that peers see the address they can dial.
    func source(for destination: IPAddress) -> IPAddress? {
        endpoints.map(\.address).first { own in
            !own.isUnspecified && own.isV6 == destination.isV6 && own.isLoopback == destination.isLoopback
        }
    }
}
