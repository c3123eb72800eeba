import PeerTestKit
import Testing

@testable import Libp2p

/// Which addresses are advertised, and which of a peer are accepted.
@Suite(.timeLimit(.minutes(10))) struct AdvertisedAddressTests {
    /// As a node has that serves a thousand services with kube-proxy in IPVS mode.
    private let services = Set((0..<1000).map { IPAddress.v4(0x0a60_0000 + UInt32($0)) })

    @Test func interfacesWithManyAddressesHaveLowPriority() throws {
        let own = try #require(IPAddress("192.168.0.9"))
        let both = try #require(IPAddress("10.96.0.1"))
        let addresses = InterfaceAddresses.classify(
            services.map { ("kube-ipvs0", $0) } + [("eth0", own), ("eth0", both), ("lo", .loopbackV4)])
        #expect(addresses.all == services.union([own, both, .loopbackV4]))
        #expect(addresses.lowPriority == services.subtracting([both]))
    }

    @Test func ofVeryManyAddressesTheOwnAreAdvertised() async throws {
        let own = try #require(IPAddress("192.168.0.9"))
        let host = try TestHost(listen: ["/ip4/0.0.0.0/tcp/0"])
        try await withHosts(host) {
            host.host.refreshAddresses(InterfaceAddresses(all: services.union([own]), lowPriority: services))
            let addresses = host.host.advertisedAddresses
            #expect(addresses.count == IdentifyMessage.maximumAddresses)
            #expect(addresses.first?.ipAddress == own)
            #expect(addresses.dropFirst().map(\.ipAddress) == services.sorted().prefix(63).map { $0 })
            host.host.refreshAddresses(InterfaceAddresses(all: services.union([own]), lowPriority: services))
            #expect(host.host.advertisedAddresses == addresses)
        }
    }

    @Test func identifyFitsIntoOneMessage() async throws {
        let label = String(repeating: "a", count: 50)
        let long = try (0..<64).map { try Multiaddr(parsing: "/dns4/\(label).\(label).\(label).example/tcp/\($0 + 1)") }
        let host = try TestHost { configuration in
            configuration.announcedAddresses = long
            configuration.agentVersion = String(repeating: "v", count: 200)
        }
        try await withHosts(host) {
            let addresses = host.host.advertisedAddresses
            #expect(addresses == Array(long.prefix(addresses.count)))
            #expect(addresses.count > 10 && addresses.count < long.count)
            let message = host.host.identifyMessage(
                addresses: addresses, observed: Multiaddr(.loopbackV6, tcpPort: 65535))
            #expect(message.encoded.count <= IdentifyMessage.maximumLength)
        }
    }

    /// Addresses change after a peer has asked for them and before it is known whether it takes pushes.
    @Test func aPeerWithOldAddressesGetsTheNewOnes() async throws {
        let alice = try TestHost()
        let moving = try TestHost(listen: ["/ip4/0.0.0.0/tcp/0"])
        try await withHosts(alice, moving) {
            _ = try await alice.host.connect(
                to: moving.id, addresses: moving.host.advertisedAddresses.filter { $0.ipAddress == .loopbackV4 })
            _ = try await alice.identified(moving.id)
            _ = try await moving.identified(alice.id)
            let handle = try #require(moving.host.state.withLockedValue { $0.connections.newest(to: alice.id) })
            let address = try #require(IPAddress("10.99.0.7"))
            moving.host.state.withLockedValue { $0.connections.setInfo(nil, of: alice.id) }
            moving.host.refreshAddresses(InterfaceAddresses(all: [address, .loopbackV4]))
            let message = IdentifyMessage(protocols: [IdentifyMessage.pushProtocolID])
            moving.host.identified(handle, message, isPush: false)
            #expect(try await alice.identified(moving.id).addresses.map(\.ipAddress).contains(address))
        }
    }

    @Test func identifyObeysTheAddressPolicy() async throws {
        let foreign = try Multiaddr(parsing: "/ip4/10.9.9.9/tcp/5001")
        let observed = try Multiaddr(parsing: "/ip4/127.0.0.1/tcp/5001")
        let strict = try TestHost { configuration in
            configuration.addressPolicy = AddressPolicy(allowsLoopback: true, requiresObservedAddress: true)
        }
        let peer = try TestHost { $0.announcedAddresses = [foreign, observed] }
        let careless = try TestHost()
        try await withHosts(strict, peer, careless) {
            try await peer.connect(to: strict)
            #expect(try await strict.identified(peer.id).addresses == [observed])
            #expect(strict.host.addresses(of: peer.id) == [observed])
            try await peer.connect(to: careless)
            #expect(try await careless.identified(peer.id).addresses == [foreign, observed])
        }
    }

    @Test func identifyIsRepeatedOnDemand() async throws {
        let alice = try TestHost()
        let bob = try TestHost()
        try await withHosts(alice, bob) {
            try await alice.connect(to: bob)
            _ = try await alice.identified(bob.id)
            alice.host.state.withLockedValue { $0.connections.setInfo(nil, of: bob.id) }
            alice.host.identifyAgain(bob.id)
            #expect(try await alice.identified(bob.id).protocols.contains(TestHost.protocolID))
            #expect(alice.host.statistics.connections == 1)
        }
    }
}
