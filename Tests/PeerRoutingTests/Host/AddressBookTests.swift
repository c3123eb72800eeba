import NIOCore
import Testing

@testable import PeerRouting

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
        book.sweep(now: now + .seconds(30))
        #expect(book.count == 0)
    }

    @Test func connectedPeersKeepTheirAddresses() throws {
        var book = AddressBook(limits: HostLimits())
        let peer = try peer(1)
        book.remember([address(1)], of: peer, until: now + .seconds(10), now: now)
        book.connected(peer)
        book.replace([address(2)], of: peer, now: now)
        book.sweep(now: now + .hours(5))
        book.forget(peer)
        #expect(book.addresses(of: peer, now: now + .hours(5)) == [address(2)])
        book.disconnected(peer, now: now)
        #expect(book.addresses(of: peer, now: now + .minutes(14)) == [address(2)])
        #expect(book.addresses(of: peer, now: now + .minutes(15)) == [])
        book.forget(address(2), of: peer)
        #expect(book.count == 0)
    }

    @Test func boundsOfAddressesAndPeers() throws {
        var limits = HostLimits()
        limits.addressBookPeers = 100
        var book = AddressBook(limits: limits)
        let crowded = try peer(0)
        book.remember((0..<200).map { address($0) }, of: crowded, until: now + .seconds(10), now: now)
        #expect(book.addresses(of: crowded, now: now).count == 64)
        let friend = try peer(-1)
        book.remember([address(1)], of: friend, until: now + .seconds(1), now: now)
        book.connected(friend)
        for number in 1..<2000 {
            book.remember([address(number)], of: try peer(number), until: now + .seconds(Int64(number)), now: now)
            #expect(book.count <= 101)
        }
        // Those that end first went first, and never the connected one.
        #expect(book.addresses(of: friend, now: now) == [address(1)])
        #expect(book.addresses(of: try peer(1999), now: now) == [address(1999)])
        #expect(book.addresses(of: try peer(1), now: now) == [])
    }

    @Test func backOffGrowsToItsMaximum() throws {
        var backOff = DialBackOff(limits: HostLimits())
        let peer = NodeIdentity().peerID
        let target = try #require(DialTarget(address(1)))
        #expect(!backOff.isResting(target, of: peer, now: now))
        for (failures, seconds) in [(1, 6), (2, 9), (3, 14), (4, 21)] {
            backOff.failed(target, of: peer, now: now)
            #expect(backOff.isResting(target, of: peer, now: now + .seconds(Int64(seconds) - 1)), "\(failures)")
            #expect(!backOff.isResting(target, of: peer, now: now + .seconds(Int64(seconds))), "\(failures)")
        }
        for _ in 0..<2000 { backOff.failed(target, of: peer, now: now) }
        #expect(!backOff.isResting(target, of: peer, now: now + .minutes(5)))
        backOff.succeeded(target, of: peer)
        #expect(!backOff.isResting(target, of: peer, now: now))
        for number in 0..<10_000 {
            backOff.failed(try #require(DialTarget(address(number))), of: nil, now: now)
            #expect(backOff.count <= DialBackOff.maximumEntries)
        }
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
        var limiter = AcceptLimiter(limits: HostLimits())
        let source = try #require(IPAddress("10.0.0.1"))
        #expect((0..<40).filter { _ in limiter.accepts(source, now: now) }.count == 32)
        #expect((0..<40).filter { _ in limiter.accepts(source, now: now + .seconds(3)) }.count == 6)
        #expect(limiter.accepts(try #require(IPAddress("10.0.0.2")), now: now))
        #expect((0..<1000).allSatisfy { _ in limiter.accepts(.loopbackV4, now: now) })
        // A whole /64 is one source.
        var six = AcceptLimiter(limits: HostLimits())
        let accepted = (0..<100).filter { six.accepts(.v6(high: 0x2001_0db8_0000_0000, low: UInt64($0)), now: now) }
        #expect(accepted.count == 32)
        for number in 0..<20_000 { _ = limiter.accepts(.v4(UInt32(number)), now: now) }
        #expect(limiter.sources <= 4096)
    }

    @Test func advertisedAddresses() throws {
        var addresses = ListenAddresses()
        let interfaces = ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "fd00::9", "fe80::9", "169.254.0.1"]
        addresses.interfaces = Set(interfaces.compactMap { IPAddress($0) })
        addresses.bound = [TCPEndpoint(.anyV4, port: 5001), TCPEndpoint(.anyV6, port: 5002)]
        #expect(
            addresses.advertised(includingLoopback: false).map(\.description) == [
                "/ip4/10.1.2.3/tcp/5001", "/ip4/192.168.0.9/tcp/5001", "/ip6/fd00::9/tcp/5002",
            ])
        #expect(addresses.advertised(includingLoopback: true).count == 5)
        func isOwn(_ text: String, _ port: UInt16) throws -> Bool {
            addresses.isOwn(TCPEndpoint(try #require(IPAddress(text)), port: port))
        }
        #expect(try isOwn("10.1.2.3", 5001))
        #expect(try isOwn("127.0.0.7", 5001))
        #expect(try !isOwn("10.1.2.3", 5002))
        #expect(try !isOwn("10.1.2.4", 5001))
        #expect(addresses.source(for: .v4(1)) == nil)
        addresses.bound = [TCPEndpoint(try #require(IPAddress("10.99.0.1")), port: 5001)]
        #expect(addresses.advertised(includingLoopback: false).map(\.description) == ["/ip4/10.99.0.1/tcp/5001"])
        #expect(addresses.source(for: .v4(1)) == IPAddress("10.99.0.1"))
        #expect(addresses.source(for: .loopbackV4) == nil)
        #expect(addresses.source(for: .anyV6) == nil)
    }
}
