import PeerTestKit
import Testing

@testable import Libp2p

@Suite struct IdentifyMessageTests {
    private func parse(_ messages: [UInt8]...) throws -> IdentifyMessage {
        var merged = IdentifyMessage()
        for message in messages {
            try merged.merge(parsing: message, maximumAddresses: 64, maximumProtocols: 1024)
        }
        return merged
    }

    @Test func vector() throws {
        let vectors = try Vectors.load()
        let identity = try NodeIdentity(seed: hex(vectors.identity("11").seed))
        let message = IdentifyMessage(
            publicKey: identity.publicKey.encoded,
            listenAddresses: [try Multiaddr(parsing: "/ip4/10.99.0.1/tcp/5001")],
            protocols: ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/spegel/kad/1.0.0"],
            observedAddress: try Multiaddr(parsing: "/ip4/10.99.0.2/tcp/40961"), agentVersion: "example/1")
        #expect(hexText(DelimitedMessage.encode(message.encoded)) == vectors.identify)
        #expect(try parse(message.encoded) == message)
    }

    @Test func messagesAreMerged() throws {
        let address = try Multiaddr(parsing: "/ip4/10.0.0.1/tcp/1")
        let other = try Multiaddr(parsing: "/ip4/10.0.0.2/tcp/2")
        let first = IdentifyMessage(listenAddresses: [address], protocols: ["/a"], agentVersion: "one").encoded
        let second = IdentifyMessage(listenAddresses: [other], protocols: ["/b"], agentVersion: "two").encoded
        let merged = try parse(first, second)
        #expect(merged.listenAddresses == [address, other])
        #expect(merged.protocols == ["/a", "/b"])
        #expect(merged.agentVersion == "two")
    }

    @Test func anInvalidAddressIsLeftOut() throws {
        var writer = ProtobufWriter()
        writer.bytes(2, hex("ff7f01"))
        writer.bytes(2, hex("040a630001061389"))
        writer.bytes(2, [UInt8](repeating: 4, count: 5000))
        writer.bytes(4, [1])
        writer.bytes(8, [1, 2, 3])
        writer.varint(99, 1)
        let message = try parse(writer.bytes)
        #expect(message.listenAddresses.map(\.description) == ["/ip4/10.99.0.1/tcp/5001"])
        #expect(message.observedAddress == nil)
    }

    @Test func listsAreBounded() throws {
        var writer = ProtobufWriter()
        for number in 0..<3000 {
            writer.string(3, "/p/\(number)")
            writer.bytes(2, Multiaddr(.v4(UInt32(number)), tcpPort: 1).bytes)
        }
        writer.string(6, String(repeating: "x", count: 5000))
        let message = try parse(writer.bytes)
        #expect(message.protocols.count == 1024)
        #expect(message.listenAddresses.count == 64)
        #expect(message.agentVersion.utf8.count == 256)
        #expect(throws: WireFormatError.self) { try parse([0x1a, 0x01, 0xff]) }
    }

    @Test func addressesFitTheConnection() throws {
        let vectors = try Vectors.load()
        let peer = try PeerID(parsing: vectors.identity("11").base58)
        let other = try PeerID(parsing: vectors.identity("22").base58)
        let texts = [
            "/ip4/10.0.0.1/tcp/5001", "/ip4/10.0.0.1/tcp/5001/p2p/\(peer)", "/ip4/10.0.0.2/tcp/5001/p2p/\(other)",
            "/ip4/127.0.0.1/tcp/5001", "/ip4/8.8.8.8/tcp/5001", "/ip4/10.0.0.1/udp/5001/quic-v1",
            "/ip4/0.0.0.0/tcp/5001",
            "/ip6/fe80::1/tcp/5001", "/ip4/224.0.0.1/tcp/1", "/ip4/10.0.0.3/tcp/0", "/dns4/x/tcp/1",
        ]
        let message = IdentifyMessage(listenAddresses: try texts.map { try Multiaddr(parsing: $0) })
        func usable(_ remote: String, loopback: Bool) throws -> [String] {
            message.usableAddresses(
                of: peer, remote: try #require(IPAddress(remote)), allowLoopback: loopback
            ).map(\.description)
        }
        let site = "/ip4/10.0.0.1/tcp/5001"
        let wide = "/ip4/8.8.8.8/tcp/5001"
        let local = "/ip4/127.0.0.1/tcp/5001"
        #expect(try usable("10.0.0.9", loopback: false) == [site, wide])
        #expect(try usable("10.0.0.9", loopback: true) == [site, wide])
        #expect(try usable("127.0.0.1", loopback: true) == [site, local, wide])
        #expect(try usable("127.0.0.1", loopback: false) == [site, wide])
        #expect(try usable("9.9.9.9", loopback: true) == [wide])
    }

    @Test func mutatedMessagesNeverCrash() throws {
        var random = SplitMix64(seed: 15)
        let sample = Array(hex(try Vectors.load().identify).dropFirst(2))
        for _ in 0..<10_000 { _ = try? parse(random.mutate(sample), random.mutate(sample)) }
    }
}
