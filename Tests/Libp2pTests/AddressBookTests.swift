import NIOCore
import PeerTestKit
import ResourceLimits
import Testing

@testable import Libp2p

@Suite struct AddressBookTests {
    private let now = NIODeadline.uptimeNanoseconds(1_000_000_000_000)

    private func address(_ number: Int) -> Multiaddr {
        Multiaddr(.v4(0x0a00_0000 | UInt32(truncatingIfNeeded: number)), tcpPort: 5001)
    }

    private func peer(_ number: Int) throws -> PeerID {
        let key = [0x08, 0x01, 0x12, 0x20] + (0..<32).map { UInt8(truncatingIfNeeded: number >> ($0 % 4 * 8)) }
        return PeerID(publicKey: try PublicKey(parsing: key[...]))
    }

    @Test func addressesEnd() throws {
        var book = AddressBook(limits: HostLimits())
        let peer = try peer(1)
        book.remember([address(1)], of: peer, until: now + .seconds(10), now: now)
        book.remember([address(2)], of: peer, until: now + .seconds(20), now: now)
        book.remember([address(1)], of: peer, until: now + .seconds(5), now: now)
        #expect(book.addresses(of: peer, now: now) == [address(1), address(2)])
        #expect(book.addresses(of: peer, now: now + .seconds(15)) == [address(2)])
        book.removeExpired(now: now + .seconds(30))
        #expect(book.count == 0)
    }

    @Test func connectedPeersKeepTheirAddresses() throws {
        var book = AddressBook(limits: HostLimits())
        let peer = try peer(1)
        book.remember([address(1)], of: peer, until: now + .seconds(10), now: now)
        book.connected(peer)
        book.replace([address(2)], of: peer)
        book.removeExpired(now: now + .hours(5))
        book.removeAll(of: peer)
        #expect(book.addresses(of: peer, now: now + .hours(5)) == [address(2)])
        book.disconnected(peer, now: now)
        #expect(book.addresses(of: peer, now: now + .minutes(14)) == [address(2)])
        #expect(book.addresses(of: peer, now: now + .minutes(15)) == [])
        book.remove(address(2), of: peer)
        #expect(book.count == 0)
    }

    @Test func boundsOfAddressesAndPeers() throws {
        var limits = HostLimits()
        limits.addressBookPeers = 100
        var book = AddressBook(limits: limits)
        let many = try peer(0)
        book.remember((0..<200).map { address($0) }, of: many, until: now + .seconds(10), now: now)
        #expect(book.addresses(of: many, now: now).count == 64)
        let connected = try peer(-1)
        book.remember([address(1)], of: connected, until: now + .seconds(1), now: now)
        book.connected(connected)
        for number in 1..<2000 {
            book.remember([address(number)], of: try peer(number), until: now + .seconds(Int64(number)), now: now)
            #expect(book.count <= 101)
        }
        // Those that end first went first, and never the connected one.
        #expect(book.addresses(of: connected, now: now) == [address(1)])
        #expect(book.addresses(of: try peer(1999), now: now) == [address(1999)])
        #expect(book.addresses(of: try peer(1), now: now) == [])
    }

    private func candidate(_ address: Multiaddr, _ peer: PeerID?) throws -> AddressBook.Candidate {
        AddressBook.Candidate(target: try #require(DialTarget(address)), address: address, peer: peer)
    }

    @Test func backOffGrowsToItsMaximum() throws {
        var book = AddressBook(limits: HostLimits())
        let peer = NodeIdentity().peerID
        let dialled = try candidate(address(1), peer)
        let target = dialled.target
        let error = HostError.dialFailed("no answer")
        #expect(!book.isInBackOff(target, of: peer, now: now))
        for (failures, seconds) in [(1, 6), (2, 9), (3, 14), (4, 21)] {
            book.dialFailed(dialled, error, now: now)
            #expect(book.isInBackOff(target, of: peer, now: now + .seconds(Int64(seconds) - 1)), "\(failures)")
            #expect(!book.isInBackOff(target, of: peer, now: now + .seconds(Int64(seconds))), "\(failures)")
        }
        for _ in 0..<2000 { book.dialFailed(dialled, error, now: now) }
        #expect(!book.isInBackOff(target, of: peer, now: now + .minutes(5)))
        book.dialSucceeded(dialled)
        #expect(!book.isInBackOff(target, of: peer, now: now))
        for number in 0..<10_000 {
            book.dialFailed(try candidate(address(number), nil), error, now: now)
            #expect(book.backOffCount <= AddressBook.maximumBackOffs)
        }
    }

    @Test func candidatesAreTheGivenAddressesThenThoseOfTheBook() throws {
        var limits = HostLimits()
        limits.dialAddresses = 3
        var book = AddressBook(limits: limits)
        let (peer, other) = (NodeIdentity().peerID, NodeIdentity().peerID)
        func candidates(
            _ given: [Multiaddr], ignoringBackOff: Bool = false, own: TCPEndpoint? = nil
        ) throws -> [Multiaddr] {
            try book.candidates(
                for: peer, given: given, ignoringBackOff: ignoringBackOff, now: now, isOwn: { $0 == own }
            ).map(\.address)
        }
        #expect(throws: HostError.noAddresses(peer)) { try candidates([]) }
        book.remember([address(1), address(2), address(3)], of: peer, until: now + .seconds(10), now: now)
        #expect(try candidates([address(9), address(2)]) == [address(9), address(2), address(1)])
        #expect(try candidates([address(9).withPeerID(other)]) == [address(1), address(2), address(3)])
        for number in 1...3 { book.dialFailed(try candidate(address(number), peer), .timedOut("dial"), now: now) }
        #expect(throws: HostError.backingOff(peer)) { try candidates([]) }
        #expect(try candidates([], ignoringBackOff: true).count == 3)
        let own = address(9).tcpEndpoint
        #expect(try candidates([address(8), address(9)], own: own) == [address(8)])
        book.removeAll(of: peer)
        #expect(throws: HostError.dialledSelf) { try candidates([address(9)], own: own) }
    }

    /// A failure whose reason lies with this host is none of the address; another peer's answer ends the address.
    @Test func onlyFailuresOfTheAddressCount() throws {
        var book = AddressBook(limits: HostLimits())
        let (peer, other) = (NodeIdentity().peerID, NodeIdentity().peerID)
        book.remember([address(1)], of: peer, until: now + .seconds(10), now: now)
        let dialled = try candidate(address(1), peer)
        for error in [HostError.dialledSelf, .shutDown, .limitReached("connections")] {
            book.dialFailed(dialled, error, now: now)
        }
        #expect(book.backOffCount == 0)
        book.dialFailed(dialled, .connectionClosed("by the peer"), now: now)
        #expect(book.isInBackOff(dialled.target, of: peer, now: now))
        #expect(!book.isInBackOff(dialled.target, of: other, now: now))
        #expect(book.addresses(of: peer, now: now) == [address(1)])
        let named = try candidate(address(1).withPeerID(peer), peer)
        book.dialFailed(named, .peerMismatch(expected: peer, found: other), now: now)
        #expect(book.addresses(of: peer, now: now) == [])
    }

    @Test func onlyTCPAddressesOfSingleHostsAreDialled() throws {
        let id = "12D3KooWPqT2nMDSiXUSx5D7fasaxhxKigVhcqfkKqrLghCq9jxz"
        for text in ["/ip4/10.0.0.1/tcp/1", "/ip6/fd00::1/tcp/1/p2p/\(id)", "/dns4/a.b/tcp/1"] {
            #expect(DialTarget(try Multiaddr(parsing: text)) != nil, "\(text)")
        }
        for text in [
            "/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1", "/ip6/fe80::1/tcp/1", "/ip4/169.254.169.254/tcp/80",
            "/ip4/224.0.0.1/tcp/1", "/ip4/255.255.255.255/tcp/1", "/ip4/10.0.0.1/tcp/0", "/ip4/10.0.0.1/udp/1/quic-v1",
            "/ip6zone/lo/ip6/fe80::1/tcp/1", "/dnsaddr/a.b", "/p2p/\(id)",
        ] {
            #expect(DialTarget(try Multiaddr(parsing: text)) == nil, "\(text)")
        }
    }

    @Test func acceptedConnectionsArePaced() throws {
        var limiter = AcceptLimiter(burst: 32, rate: 2, maximumSources: 4096)
        let source = try #require(IPAddress("10.0.0.1"))
        #expect((0..<40).filter { _ in limiter.accepts(source, now: now) }.count == 32)
        #expect((0..<40).filter { _ in limiter.accepts(source, now: now + .seconds(3)) }.count == 6)
        #expect(limiter.accepts(try #require(IPAddress("10.0.0.2")), now: now))
        #expect((0..<1000).allSatisfy { _ in limiter.accepts(.loopbackV4, now: now) })
        // A whole /64 is one source.
        var six = AcceptLimiter(burst: 32, rate: 2, maximumSources: 4096)
        let accepted = (0..<100).filter { six.accepts(.v6(high: 0x2001_0db8_0000_0000, low: UInt64($0)), now: now) }
        #expect(accepted.count == 32)
        for number in 0..<20_000 { _ = limiter.accepts(.v4(UInt32(number)), now: now) }
        #expect(limiter.sources <= 4096)
    }

    @Test func advertisedAddresses() throws {
        let interfaces = ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "fd00::9", "fe80::9", "169.254.0.1"]
        let interfaceAddresses = InterfaceAddresses(all: Set(interfaces.compactMap { IPAddress($0) }))
        var addresses = ListenAddresses(
            endpoints: [TCPEndpoint(.anyV4, port: 5001), TCPEndpoint(.anyV6, port: 5002)],
            interfaces: interfaceAddresses)
        #expect(
            addresses.reachable(includingLoopback: false).map(\.description) == [
                "/ip4/10.1.2.3/tcp/5001", "/ip4/192.168.0.9/tcp/5001", "/ip6/fd00::9/tcp/5002",
            ])
        #expect(addresses.reachable(includingLoopback: true).count == 5)
        func isOwn(_ text: String, _ port: UInt16) throws -> Bool {
            addresses.isOwn(TCPEndpoint(try #require(IPAddress(text)), port: port))
        }
        #expect(try isOwn("10.1.2.3", 5001))
        #expect(try isOwn("127.0.0.7", 5001))
        #expect(try !isOwn("10.1.2.3", 5002))
        #expect(try !isOwn("10.1.2.4", 5001))
        #expect(addresses.source(for: .v4(1)) == nil)
        addresses = ListenAddresses(
            endpoints: [TCPEndpoint(try #require(IPAddress("10.99.0.1")), port: 5001)], interfaces: interfaceAddresses)
        #expect(addresses.reachable(includingLoopback: false).map(\.description) == ["/ip4/10.99.0.1/tcp/5001"])
        #expect(addresses.source(for: .v4(1)) == IPAddress("10.99.0.1"))
        #expect(addresses.source(for: .loopbackV4) == nil)
        #expect(addresses.source(for: .anyV6) == nil)
    }
}
