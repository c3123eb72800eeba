import NIOCore
import PeerTestKit
import TestSupport
import Testing

@testable import Libp2p
@testable import PeerRouting

/// Claims between real routers.
@Suite(.serialized, .timeLimit(.minutes(5))) struct ClaimServiceTests {
    /// Routers that know each other; those of `silent` do not speak the protocol.
    private static func cluster(_ count: Int, silent: Set<Int> = []) async throws -> [KademliaRouter] {
        // A machine that stalls neither loses its leases nor is passed over.
        var limits = ClaimLimits()
        (limits.lease, limits.timeout) = (.minutes(5), .seconds(120))
        let patient = limits
        let first = try makeRouter { $0.claims = silent.contains(0) ? nil : patient }
        try await first.start()
        var routers = [first]
        for number in 1..<count {
            let router = try makeRouter(joining: first.fullAddresses) {
                $0.claims = silent.contains(number) ? nil : patient
            }
            try await router.start()
            routers.append(router)
        }
        for router in routers {
            try await eventually { await router.knownPeers().count == count - 1 }
            for other in routers where other !== router {
                if !router.host.isConnected(to: other.peerID) {
                    _ = try await router.host.connect(to: other.peerID, addresses: other.host.listenAddresses)
                }
                try await eventually { router.host.protocols(of: other.peerID) != nil }
            }
        }
        return routers
    }

    private static func stop(_ routers: [KademliaRouter]) async { for router in routers { await router.shutdown() } }

    @Test func oneLeadsAndTheOthersFollow() async throws {
        let routers = try await Self.cluster(5)
        for number in 0..<8 {
            let key = "sha256:\(number)"
            var leader: PeerID?
            for router in routers {
                #expect(router.canClaim)
                switch await router.claim(ContentClaim(key: key)) {
                case .lead:
                    #expect(leader == nil, "two lead")
                    leader = router.peerID
                case .follow(let peer):
                    #expect(peer.id == leader)
                    #expect(peer.addresses == [.loopbackV4])
                case .unknown: Issue.record("nobody answered")
                }
            }
            // The arbiter still knows them, and forgets who has failed.
            let router = try #require(routers.first { $0.peerID == leader })
            #expect(await router.report(.arriving(bytes: 10), of: key))
            #expect(await router.report(.failed, of: key))
            #expect(await !router.report(.arriving(bytes: 10), of: key))
            #expect(await routers.first { $0.peerID != leader }?.claim(ContentClaim(key: key)) == .lead)
        }
        await Self.stop(routers)
    }

    @Test func anotherArbiterAnswersForOneThatHasGone() async throws {
        let routers = try await Self.cluster(5)
        // The arbiter of this key is another one than the first two.
        let key = try #require(
            (0..<1000).lazy.map { "sha256:\($0)" }.first { key in
                let position = ContentKey(key).position
                let nearest = routers.min {
                    KadKey(hashing: $0.peerID.bytes).distance(to: position)
                        < KadKey(hashing: $1.peerID.bytes).distance(to: position)
                }
                return nearest === routers[4]
            })
        #expect(await routers[0].claim(ContentClaim(key: key)) == .lead)
        await routers[4].shutdown()
        let answers = [
            await routers[1].claim(ContentClaim(key: key)), await routers[2].claim(ContentClaim(key: key)),
        ]
        #expect(!answers.contains(.unknown))
        #expect(answers.count { $0 == .lead } == 1)
        await Self.stop(routers)
    }

    @Test func nobodyIsAskedWhoDoesNotSpeakTheProtocol() async throws {
        let routers = try await Self.cluster(3, silent: [1, 2])
        #expect(!routers[0].canClaim)
        #expect(!routers[1].canClaim)
        #expect(await routers[1].claim(ContentClaim(key: "sha256:1")) == .unknown)
        #expect(await !routers[1].report(.complete, of: "sha256:1"))
        await Self.stop(routers)
    }
}
