import PeerTestKit
import Testing

@testable import PeerRoutingCore

@Suite struct MultiaddrTests {
    @Test func vectors() throws {
        for (text, binary) in try Vectors.load().multiaddr {
            #expect(hexText(try Multiaddr(parsing: text).bytes) == binary)
            #expect(try Multiaddr(bytes: hex(binary)).description == text)
        }
    }

    @Test(arguments: [
        "/ip4/1.2.3.4/tcp/0", "/ip4/1.2.3.4/udp/65535/quic", "/ip4/1.2.3.4/ipcidr/24", "/ip4/1.2.3.4/sctp/1/dccp/2",
        "/ip4/1.2.3.4/udp/1/webrtc-direct", "/ip4/1.2.3.4/udp/1/p2p-webrtc-direct", "/unix/var/run/a.sock",
        "/ip4/1.2.3.4/tcp/443/tls/sni/example.com/ws", "/dns/x/tcp/1/wss", "/ip4/1.2.3.4/tcp/80/http/http-path/a%2Fb",
        "/ip4/1.2.3.4/tcp/1/noise", "/dns4/h/tcp/443/https",
        "/ip4/1.2.3.4/udp/1/quic-v1/webtransport/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ",
        "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234",
    ])
    func everyProtocolRoundTrips(_ text: String) throws {
        let address = try Multiaddr(parsing: text)
        #expect(address.description == text)
        #expect(try Multiaddr(bytes: address.bytes) == address)
    }

    @Test(arguments: [
        "", "/", "//", "ip4/1.2.3.4", "/ip4/1.2.3", "/tcp/65536", "/ip4/1.2.3.4//tcp/1", "/ip4", "/tcp", "/tcp/x",
        "/tcp/+1", "/ip6/1.2.3.4", "/ip4/::1", "/unknown/1", "/p2p/12D3", "/p2p/", "/dns4//tcp/1", "/ip6zone",
        "/onion3/abc:1", "/ipcidr/256", "/ip4/1.2.3.4/tcp/99999999999999999999",
    ])
    func refusesText(_ text: String) {
        #expect(throws: WireFormatError.self) { try Multiaddr(parsing: text) }
    }

    @Test(arguments: [
        "", "040a63", "0613", "ff7f01", "040a63000186001389", "3600", "360161 ff01", "36022f2f", "a50300", "a503021220",
        "a5030100", "2a00", "9003 00", "29 00000000000000000000000000000000 06",
    ])
    func refusesBinary(_ text: String) {
        #expect(throws: WireFormatError.self) { try Multiaddr(bytes: hex(text)) }
    }

    @Test func trailingSlashesAndTheOldNameOfP2P() throws {
        let id = "12D3KooWPqT2nMDSiXUSx5D7fasaxhxKigVhcqfkKqrLghCq9jxz"
        #expect(try Multiaddr(parsing: "/ip4/1.2.3.4/tcp/1//").description == "/ip4/1.2.3.4/tcp/1")
        #expect(try Multiaddr(parsing: "/ipfs/\(id)").description == "/p2p/\(id)")
    }

    @Test func lengthIsBounded() {
        let long = [UInt8](repeating: 0, count: 1).flatMap { _ in (0..<200).flatMap { _ in hex("0601bb0601bb") } }
        #expect(throws: WireFormatError.self) { try Multiaddr(bytes: long) }
        #expect(throws: WireFormatError.self) {
            try Multiaddr(parsing: String(repeating: "/tcp/1", count: 1000))
        }
    }

    @Test func endpoints() throws {
        func endpoint(_ text: String) throws -> String? { try Multiaddr(parsing: text).tcpEndpoint?.description }
        let id = "12D3KooWPqT2nMDSiXUSx5D7fasaxhxKigVhcqfkKqrLghCq9jxz"
        #expect(try endpoint("/ip4/10.1.2.3/tcp/5001") == "10.1.2.3:5001")
        #expect(try endpoint("/ip6/::1/tcp/5001/p2p/\(id)") == "[::1]:5001")
        #expect(try endpoint("/ip6zone/eth0/ip6/fe80::1/tcp/7") == "[fe80::1%eth0]:7")
        for other in [
            "/ip4/10.1.2.3", "/ip4/10.1.2.3/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/1/ws", "/dns4/h/tcp/1", "/tcp/1",
            "/ip4/1.2.3.4/tcp/1/p2p/\(id)/p2p-circuit", "/ip6zone/a/ip4/1.2.3.4/tcp/1",
        ] {
            #expect(try endpoint(other) == nil)
        }
        let dns = try #require(try Multiaddr(parsing: "/dns4/node.local/tcp/5001").dnsEndpoint)
        #expect(dns == ("node.local", 5001, .v4))
        #expect(try Multiaddr(parsing: "/ip4/1.2.3.4").ipAddress == IPAddress("1.2.3.4"))
    }

    @Test func peerIDSuffix() throws {
        let ids = try Vectors.load().identities.map { try PeerID(parsing: $0.base58) }
        let plain = try Multiaddr(parsing: "/ip4/10.1.2.3/tcp/5001")
        let own = plain.withPeerID(ids[0])
        #expect(own.peerID == ids[0])
        #expect(own.withoutPeerID == plain)
        #expect(own.withPeerID(ids[1]).peerID == ids[1])
        #expect(own.strippingPeerID(ids[0]) == plain)
        #expect(own.strippingPeerID(ids[1]) == nil)
        #expect(plain.strippingPeerID(ids[1]) == plain)
        #expect(Multiaddr(.v4(0x0a01_0203), tcpPort: 5001, peer: ids[0]) == own)
    }

    @Test func mutatedAddressesParseToThemselvesOrNotAtAll() throws {
        var random = SplitMix64(seed: 7)
        let vectors = try Vectors.load().multiaddr
        let binaries = vectors.values.sorted().map { hex($0) }
        let texts = vectors.keys.sorted().map { Array($0.utf8) }
        for round in 0..<20_000 {
            if let address = try? Multiaddr(bytes: random.mutate(binaries[round % binaries.count])) {
                #expect(try Multiaddr(bytes: address.bytes).components == address.components)
                // Text cannot tell a path that began without a slash, nor a name with a trailing one, from its twin.
                if let again = try? Multiaddr(parsing: address.description) {
                    #expect(again.description == address.description)
                }
            }
            let text = String(decoding: random.mutate(texts[round % texts.count]), as: UTF8.self)
            if let address = try? Multiaddr(parsing: text) {
                #expect(try Multiaddr(bytes: address.bytes) == address)
                #expect(try Multiaddr(parsing: address.description) == address, "\(text)")
            }
        }
    }
}
