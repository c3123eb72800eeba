import PeerTestKit
import Testing

@testable import PeerRouting

@Suite struct KadMessagePropertyTests {
    @Test func damagedMessagesNeverTrapAndStayWithinLimits() throws {
        var random = SplitMix64(seed: 77)
        let originals = try KadVectorTests.messages().map { $0.0.encoded() }
        for _ in 0..<20_000 {
            let damaged = random.mutate(originals.randomElement(using: &random) ?? [])
            guard let message = try? KadMessage(decoding: damaged) else { continue }
            #expect(message.closerPeers.count <= 40)
            // What was understood can be said again and understood the same way.
            #expect(try KadMessage(decoding: message.encoded()) == message)
        }
    }

    @Test func peersBeyondTheLimitsAreLeftOut() throws {
        let peers = (0..<100).map { contact($0) }
        let decoded = try KadMessage(decoding: KadMessage(kind: .findNode, closerPeers: peers).encoded())
        #expect(decoded.closerPeers == Array(peers.prefix(40)))
    }

    @Test func anAddressOfAnotherPeerOrNobodyKnowsIsDropped() throws {
        let (a, b) = (syntheticPeer(1), syntheticPeer(2))
        let address = Multiaddr(.v4(0x0a00_0001), tcpPort: 5001)
        var peer = ProtobufWriter()
        peer.bytes(1, a.bytes)
        peer.bytes(2, address.withPeerID(a).bytes)
        peer.bytes(2, address.withPeerID(b).bytes)
        peer.bytes(2, [0xff, 0x7f, 1, 2, 3])
        peer.varint(3, 99)
        peer.bytes(4, [1, 2, 3])
        var noPeer = ProtobufWriter()
        noPeer.bytes(1, [1, 2, 3])
        var message = ProtobufWriter()
        message.varint(1, 4)
        message.bytes(8, peer.bytes)
        message.bytes(8, noPeer.bytes)
        message.bytes(11, [9])
        let decoded = try KadMessage(decoding: message.bytes)
        #expect(decoded.closerPeers == [KadContact(id: a, addresses: [address])])
    }

    @Test func aProviderWithEndlessAddressesIsTrimmedToEightKilobytes() throws {
        let addresses = (0..<64).map {
            Multiaddr(.v6(high: 0xfd00 << 48, low: UInt64($0)), tcpPort: 1, peer: syntheticPeer($0))
        }
        let many = KadContact(id: syntheticPeer(1), addresses: addresses + addresses + addresses)
        let size = KadMessage(kind: .findNode, closerPeers: [many]).encoded().count
        #expect(size <= 8 * 1024 + 64)
    }

    @Test func unknownTypesAreErrors() {
        #expect(throws: WireFormatError.self) { try KadMessage(decoding: [0x08, 0x06]) }
        #expect(throws: WireFormatError.self) { try KadMessage(decoding: [0x08]) }
        #expect((try? KadMessage(decoding: []))?.kind == .putValue)
    }
}
