import Testing

@testable import PeerRoutingCore

@Suite struct AddressPolicyTests {
    func addresses(_ texts: [String]) throws -> [Multiaddr] { try texts.map { try Multiaddr(parsing: $0) } }

    @Test func onlyAddressesOfNodesAreAccepted() throws {
        let good = try addresses(["/ip4/10.0.0.1/tcp/5001", "/ip6/fd00::1/tcp/5001", "/ip4/93.184.216.34/tcp/1"])
        let bad = try addresses([
            "/ip4/127.0.0.1/tcp/5001", "/ip6/::1/tcp/5001", "/ip4/0.0.0.0/tcp/5001", "/ip4/169.254.169.254/tcp/80",
            "/ip6/fe80::1/tcp/5001", "/ip4/224.0.0.1/tcp/5001", "/ip6/ff02::1/tcp/5001",
            "/ip4/255.255.255.255/tcp/5001", "/dns4/metadata.internal/tcp/80", "/ip4/10.0.0.1/udp/5001/quic-v1",
            "/ip4/10.0.0.1", "/ip4/10.0.0.1/tcp/0", "/ip6/::ffff:127.0.0.1/tcp/5001",
            "/ip6/::ffff:169.254.169.254/tcp/80", "/ip4/100.100.100.200/tcp/80", "/ip6/fd00:ec2::254/tcp/80",
            "/ip6/64:ff9b::808:808/tcp/22", "/ip6/2002:808:808::1/tcp/22", "/ip6/2001::1/tcp/22",
            "/ip6/::808:808/tcp/22", "/ip4/168.63.129.16/tcp/80", "/ip4/240.0.0.1/tcp/1", "/ip4/0.1.2.3/tcp/1",
        ])
        #expect(AddressPolicy().filter(good + bad + good) == good)
        #expect(
            AddressPolicy(allowsLoopback: true).filter(bad).map(\.description).prefix(2) == [
                "/ip4/127.0.0.1/tcp/5001", "/ip6/::1/tcp/5001",
            ])
    }

    @Test func networksRestrictFurther() throws {
        let network = try #require(IPNetwork("10.1.0.0/16"))
        let policy = AddressPolicy(allowedNetworks: [network])
        let given = try addresses(["/ip4/10.1.2.3/tcp/1", "/ip4/10.2.2.3/tcp/1", "/ip6/fd00::1/tcp/1"])
        #expect(policy.filter(given) == [given[0]])
    }

    /// A node among private addresses believes those and its own network; one with a public address believes any.
    @Test func networksFollowFromInterfaces() throws {
        func networks(_ texts: [String]) throws -> [IPNetwork] { try texts.map { try #require(IPNetwork($0)) } }
        let inside = AddressPolicy.networks(ofInterfaces: try networks(["127.0.0.1/8", "10.1.2.3/16", "fe80::1/64"]))
        let policy = AddressPolicy(allowedNetworks: inside)
        for good in ["10.200.0.1", "192.168.1.1", "100.64.0.1", "fd12::1"] {
            #expect(policy.accepts(try #require(IPAddress(good))), "\(good)")
        }
        for bad in ["8.8.8.8", "2a00::1", "100.100.100.200", "127.0.0.1"] {
            #expect(!policy.accepts(try #require(IPAddress(bad))), "\(bad)")
        }
        #expect(AddressPolicy.networks(ofInterfaces: try networks(["10.1.2.3/16", "93.184.216.34/24"])).isEmpty)
        #expect(AddressPolicy().accepts(try #require(IPAddress("8.8.8.8"))))
    }

    @Test func onlyTheObservedAddressWhenRequired() throws {
        let given = try addresses(["/ip4/10.1.2.3/tcp/1", "/ip4/10.9.9.9/tcp/1"])
        #expect(AddressPolicy().filter(given, observed: IPAddress("::ffff:10.1.2.3")) == [given[0]])
    }

    @Test func aPeersAddressesAreBounded() throws {
        let many = try (1...100).map { try Multiaddr(parsing: "/ip4/10.0.0.\($0)/tcp/1") }
        #expect(AddressPolicy().filter(many) == Array(many.prefix(16)))
    }
}
