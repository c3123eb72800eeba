import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

/// Peers that were not admitted, or were put out, by accident get in later.
@Suite struct SecondChanceTests {
    private var played = PlayedNode()
    private let peer = contact(1)

    private var isAdmitted: Bool { played.node.table.contains(peer.key) }
    private var hasLookedAround: Bool { played.node.hasLookedAround }

    private mutating func evict() {
        played.join([1])
        #expect(isAdmitted)
        played.peers = { _, _ in .fail(.unreachable) }
        played.node.reportUnreachable(peer.id, now: played.now)
        played.settle()
        #expect(!isAdmitted)
        #expect(played.node.formerPeers == [peer.key])
    }

    private static func willing(_ peer: KadContact, _ message: KadMessage) -> PlayedNode.Play {
        .answer(KadMessage(kind: message.kind))
    }

    // MARK: Former peers

    @Test mutating func aFormerPeerThatComesBackIsAdmitted() {
        evict()
        played.peers = Self.willing
        played.wait(40)
        #expect(isAdmitted)
        #expect(played.node.formerPeers.isEmpty)
    }

    /// A peer that restarts is admitted again within twice the time it was away, and two seconds.
    @Test(arguments: [1, 3, 10, 60]) mutating func aRestartedPeerIsFoundSoon(seconds: Int) {
        evict()
        played.wait(Double(seconds))
        #expect(!isAdmitted)
        played.peers = Self.willing
        // The waits are shifted by up to a fifth.
        played.wait(max(2, Double(seconds) * 1.4))
        #expect(isAdmitted)
    }

    @Test mutating func aFormerPeerThatIsThereButRefusesHoldsNoPlace() {
        evict()
        played.peers = { _, _ in .fail(.refused) }
        played.wait(40)
        #expect(played.node.formerPeers.isEmpty)
    }

    @Test mutating func aFormerPeerThatNoLongerServesHoldsNoPlace() {
        evict()
        played.node.identified(peer.id, addresses: peer.addresses, speaksKademlia: false, now: played.now)
        played.peers = Self.willing
        played.wait(40)
        #expect(!isAdmitted)
        #expect(played.node.formerPeers.isEmpty)
    }

    /// What went wrong on our side says nothing about the peer.
    @Test mutating func aRetryThatFailsForOurOwnReasonsIsRepeated() {
        evict()
        played.peers = { _, _ in .fail(.local) }
        played.wait(40)
        #expect(played.node.formerPeers == [peer.key])
        played.peers = Self.willing
        played.wait(150)
        #expect(isAdmitted)
    }

    @Test mutating func aRetryThatCouldNotBeMadeIsRepeated() {
        var configuration = KademliaConfiguration()
        configuration.checks = 1
        played = PlayedNode(configuration: configuration)
        played.join([2])
        evict()
        // The one check there may be is under way.
        played.peers = { _, _ in .hold }
        played.node.reportUnreachable(syntheticPeer(2), now: played.now)
        played.settle()
        played.wait(40)
        #expect(!played.requests.suffix(from: played.requests.count - played.held.count).contains { $0.peer == peer })
        #expect(played.node.formerPeers == [peer.key])
        played.peers = Self.willing
        played.release { .answer(KadMessage(kind: $0.message.kind)) }
        played.wait(150)
        #expect(isAdmitted)
    }

    // MARK: Admission

    @Test mutating func whoFailedTheCheckIsCheckedAgainSoon() {
        played.peers = { _, _ in .fail(.refused) }
        played.join([1])
        #expect(!isAdmitted)
        played.peers = Self.willing
        played.wait(121)
        #expect(isAdmitted)
    }

    @Test mutating func withAFullerTableItWaits() {
        played.join(10..<22)
        let late = peer
        played.peers = { asked, message in asked == late ? .fail(.refused) : Self.willing(asked, message) }
        played.join([1])
        let before = played.requests.count { $0.peer == late }
        played.wait(250)
        #expect(played.requests.count { $0.peer == late } == before)
    }

    /// A node that restarts with the same key comes back before its former connection is seen to be dead.
    @Test mutating func aNewConnectionEndsADeparture() {
        played.join([1])
        played.node.peerLeft(peer.id, now: played.now)
        #expect(!isAdmitted)
        // Something it said before it left, which came late.
        played.node.identified(
            peer.id, addresses: peer.addresses, speaksKademlia: true, isPush: true, now: played.now)
        played.settle()
        #expect(!isAdmitted)
        played.join([1])
        #expect(isAdmitted)
    }

    // MARK: Looking around

    private final class Counter {
        var count = 0
    }

    @Test mutating func aFirstLookAroundThatFoundNobodyIsRepeated() {
        let counter = Counter()
        // The check is answered, the search that follows is not.
        played.peers = { _, message in
            counter.count += 1
            return counter.count == 2 ? .fail(.local) : .answer(KadMessage(kind: message.kind))
        }
        played.join([1])
        #expect(isAdmitted)
        #expect(!hasLookedAround)
        played.wait(3)
        #expect(hasLookedAround)
    }
}
