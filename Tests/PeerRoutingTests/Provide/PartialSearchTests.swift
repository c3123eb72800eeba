import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

/// A search that was answered by few of those it asked says nothing about the rest of the network.
@Suite struct PartialSearchTests {
    @Test func aQueryKnowsWhetherEverybodyAnswered() {
        for failing in [nil, 1] {
            var query = IterativeQuery(
                target: ContentKey("a").position, own: KadKey(hashing: [0]), seeds: (0..<4).map { contact($0) })
            while !query.isFinished {
                for peer in query.nextRequests(now: at(0)) {
                    if failing.map({ contact($0) == peer }) ?? false {
                        query.failed(peer.key)
                    } else {
                        query.answered(peer.key, closer: [contact(4)])
                    }
                }
            }
            #expect(query.sawEverybody == (failing == nil))
            #expect(query.result.count == (failing == nil ? 5 : 4))
        }
    }

    @Test func fewAnswersCoverOnlyTheirKey() {
        let origin = ContentKey("a").position
        let coverage = NetworkCoverage(
            origin: origin, peers: (0..<5).map { contact($0) }, k: 20, sawEverybody: false, expires: at(60))
        #expect(coverage.covers(origin))
        #expect((0..<100).allSatisfy { !coverage.covers(ContentKey("key \($0)").position) })
    }

    private final class Counter {
        var count = 0
    }

    @Test func otherKeysGetSearchesOfTheirOwn() throws {
        var played = PlayedNode()
        played.join(0..<40)
        played.wait(20)
        #expect(!played.node.networkIsSmall)
        let counter = Counter()
        played.peers = { _, message in
            counter.count += 1
            return counter.count % 5 == 0 ? .answer(KadMessage(kind: message.kind)) : .fail(.local)
        }
        try played.node.advertise([ContentKey("first")], now: played.now)
        played.wait(0.2)
        let coverage = try #require(played.node.coverages.last)
        #expect(coverage.peers.count < 20)
        #expect(!coverage.covers(ContentKey("second").position))
        played.peers = { _, message in .answer(KadMessage(kind: message.kind)) }
        let second = ContentKey("second")
        try played.node.advertise([second], now: played.now)
        played.wait(0.2)
        #expect(played.announced.count { $0.value.contains(second) } == 20)
    }
}
