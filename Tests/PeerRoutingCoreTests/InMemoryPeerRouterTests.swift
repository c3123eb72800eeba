import Libp2p
import PeerTestKit
import Testing

@Suite struct InMemoryPeerRouterTests {
    let network = InMemoryPeerNetwork()

    func router(_ last: UInt8) -> InMemoryPeerRouter {
        InMemoryPeerRouter(
            peer: Peer(id: NodeIdentity().peerID, addresses: [.v4(0x0a00_0000 | UInt32(last))]), network: network)
    }

    func found(_ key: String, by router: InMemoryPeerRouter, limit: Int = 0) async -> [Peer] {
        var peers: [Peer] = []
        for await peer in router.providers(for: key, limit: limit) { peers.append(peer) }
        return peers
    }

    @Test func findsWhatOthersAdvertiseAndNeverItself() async throws {
        let (a, b, c) = (router(1), router(2), router(3))
        try await a.advertise(["x", "y"])
        try await b.advertise(["x", "x"])
        #expect(await found("x", by: c) == [a.localPeer, b.localPeer])
        #expect(await found("x", by: c, limit: 1) == [a.localPeer])
        #expect(await found("x", by: a) == [b.localPeer])
        #expect(await found("z", by: a).isEmpty)
        await a.withdraw(["x"])
        #expect(await found("x", by: c) == [b.localPeer])
        #expect(await found("y", by: c) == [a.localPeer])
        #expect(Set(await c.knownPeers()) == [a.localPeer, b.localPeer])
    }

    @Test func unreachablePeersComeLast() async throws {
        let (a, b, c) = (router(1), router(2), router(3))
        try await a.advertise(["x"])
        try await b.advertise(["x"])
        c.reportUnreachable(a.localPeer.id)
        #expect(await found("x", by: c) == [b.localPeer, a.localPeer])
        #expect(await found("x", by: router(4)) == [a.localPeer, b.localPeer])
    }

    @Test func leavingTakesEverythingBack() async throws {
        let (a, b) = (router(1), router(2))
        try await a.advertise(["x"])
        await a.shutdown()
        #expect(await found("x", by: b).isEmpty)
        #expect(await b.knownPeers().isEmpty)
        #expect(!a.isReady && b.isReady)
        await #expect(throws: PeerRouterError.stopped) { try await a.advertise(["x"]) }
    }
}
