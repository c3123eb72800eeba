import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

/// What callers of a node receive: the searches and the health of peers together.
@Suite struct LookupServiceTests {
    var played = PlayedNode()

    /// Three peers, of whom some say that some provide.
    private mutating func join(_ told: [KadContact]) {
        played.join(1...3)
        played.peers = { _, message in
            .answer(
                KadMessage(
                    kind: message.kind, key: message.key, providerPeers: message.kind == .getProviders ? told : []))
        }
    }

    @Test mutating func concurrentCallersOfOneKeyShareASearch() {
        join([])
        played.peers = { _, message in message.kind == .getProviders ? .hold : .answer(KadMessage(kind: message.kind)) }
        let callers = (0..<50).map { _ in played.look("a") }
        #expect(played.searches(for: "a") == 3)
        #expect(played.node.statistics.lookupsStarted == 1)
        #expect(played.node.statistics.lookupsShared == 49)
        let provider = contact(7)
        played.release { .answer(KadMessage(kind: $0.message.kind, key: $0.message.key, providerPeers: [provider])) }
        for caller in callers {
            #expect(played.found[caller] == [provider])
            #expect(played.ended.contains(caller))
        }
        // Another key is another search.
        _ = played.look("b")
        #expect(played.searches(for: "b") == 3)
    }

    /// The caller keeps results, and knows when they have proved useless: each call after the end of a search starts one.
    @Test mutating func resultsAreNotCached() {
        join([contact(7)])
        let first = played.look("a", limit: 1)
        let sent = played.searches(for: "a")
        let second = played.look("a", limit: 1)
        #expect(played.searches(for: "a") == 2 * sent)
        for caller in [first, second] {
            #expect(played.found[caller] == [contact(7)])
            #expect(played.ended.contains(caller))
        }
    }

    @Test mutating func aProviderEndsAMissAtOnce() {
        join([])
        let first = played.look("a")
        #expect(played.found[first] == nil)
        played.wait(0.1)
        played.receiveRecord("a", from: contact(2))
        let second = played.look("a", limit: 1)
        #expect(played.found[second] == [contact(2)])
        #expect(played.searches(for: "a") == 3)
    }

    @Test mutating func anAnnouncementReachesThoseWhoWait() {
        join([])
        played.peers = { _, message in message.kind == .getProviders ? .hold : .answer(KadMessage(kind: message.kind)) }
        let caller = played.look("a", limit: 1)
        #expect(!played.ended.contains(caller))
        played.receiveRecord("a", from: contact(2))
        #expect(played.found[caller] == [contact(2)])
        #expect(played.ended.contains(caller))
    }

    @Test mutating func oneselfIsNeverReturned() throws {
        let own = KadContact(id: played.node.local, addresses: played.node.addresses)
        join([own, contact(7)])
        let caller = played.look("a")
        #expect(played.found[caller] == [contact(7)])
        try played.node.advertise([ContentKey("b")], now: played.now)
        played.peers = { _, message in
            .answer(KadMessage(kind: message.kind, key: message.key, providerPeers: [own]))
        }
        let other = played.look("b")
        #expect(played.found[other] == nil && played.ended.contains(other))
        // Others are told, of course.
        #expect(played.providersTold("b").map(\.id) == [played.node.local])
    }

    @Test mutating func aPeerThatCouldNotBeFetchedFromIsNamedLastAndChecked() {
        join([])
        played.receiveRecord("a", from: contact(2))
        played.receiveRecord("a", from: contact(3))
        let before = played.look("a")
        #expect(Set(played.found[before, default: []].map(\.id)) == [syntheticPeer(2), syntheticPeer(3)])
        let sent = played.requests.count
        played.node.reportUnreachable(syntheticPeer(2), now: played.now)
        played.settle()
        #expect(played.requests[sent...].map(\.peer.id) == [syntheticPeer(2)], "it is asked whether it is there")
        // It is: its registry may still have trouble of its own.
        for _ in 0..<10 {
            let caller = played.look("a")
            #expect(played.found[caller]?.map(\.id) == [syntheticPeer(3), syntheticPeer(2)])
        }
        let one = played.look("a", limit: 1)
        #expect(played.found[one]?.map(\.id) == [syntheticPeer(3)])
        played.wait(31)
        played.receiveRecord("a", from: contact(2))
        var firsts: Set<PeerID> = []
        for _ in 0..<3 {
            let later = played.look("a")
            firsts.formUnion(played.found[later, default: []].map(\.id))
        }
        #expect(firsts == [syntheticPeer(2), syntheticPeer(3)])
    }

    @Test mutating func aDeadPeerIsLeftOutUntilItShowsItself() {
        join([])
        played.receiveRecord("a", from: contact(2))
        played.receiveRecord("a", from: contact(3))
        let dead = syntheticPeer(2)
        played.peers = { peer, message in
            peer.id == dead ? .fail(.unreachable) : .answer(KadMessage(kind: message.kind, key: message.key))
        }
        played.node.reportUnreachable(dead, now: played.now)
        played.settle()
        let caller = played.look("a")
        #expect(played.found[caller]?.map(\.id) == [syntheticPeer(3)])
        #expect(played.providersTold("a").map(\.id) == [syntheticPeer(3)], "nor is anybody else sent to it")
        #expect(!played.node.table.contains(contact(2).key))
        // It comes back: what was said of it does not count any longer.
        played.peers = { _, message in .answer(KadMessage(kind: message.kind, key: message.key)) }
        played.wait(1)
        played.node.disconnected(dead, now: played.now)
        played.join([2])
        played.wait(5)
        let again = played.look("a")
        #expect(Set(played.found[again, default: []].map(\.id)) == [syntheticPeer(2), syntheticPeer(3)])
    }

    @Test mutating func recordsOfAPeerThatLeftAreGone() {
        join([])
        played.receiveRecord("a", from: contact(2))
        played.node.peerLeft(syntheticPeer(2), now: played.now)
        played.settle()
        let caller = played.look("a")
        #expect(played.found[caller] == nil && played.ended.contains(caller))
        #expect(played.providersTold("a").isEmpty)
        // A late record does not bring it back, a connection does.
        played.receiveRecord("a", from: contact(2))
        #expect(played.providersTold("a").isEmpty)
        played.node.disconnected(syntheticPeer(2), now: played.now)
        played.join([2])
        played.receiveRecord("a", from: contact(2))
        #expect(played.providersTold("a").map(\.id) == [syntheticPeer(2)])
    }

    @Test mutating func withoutPeersTheKnownIsAllThereIs() {
        let nobody = played.look("a")
        #expect(played.ended.contains(nobody) && played.requests.isEmpty)
        played.receiveRecord("b", from: contact(2))
        let known = played.look("b")
        #expect(played.found[known] == [contact(2)] && played.ended.contains(known))
    }

    @Test mutating func aDeadPeerDoesNotHoldACallerUp() {
        join([])
        played.peers = { peer, message in
            guard message.kind == .getProviders else { return .answer(KadMessage(kind: message.kind)) }
            return peer.id == syntheticPeer(1) ? .hold : .answer(KadMessage(kind: message.kind, key: message.key))
        }
        let caller = played.look("a")
        #expect(!played.ended.contains(caller))
        played.wait(0.5)
        #expect(played.ended.contains(caller))
    }

    @Test mutating func searchesAreBounded() {
        var configuration = KademliaConfiguration()
        configuration.queries = 5
        played = PlayedNode(configuration: configuration)
        join([])
        played.peers = { _, message in message.kind == .getProviders ? .hold : .answer(KadMessage(kind: message.kind)) }
        let callers = (0..<10).map { played.look("key \($0)") }
        #expect(played.node.queries.count == 5)
        #expect(callers.count { played.ended.contains($0) } == 5)
        // None of them waits for ever.
        played.wait(31)
        #expect(callers.allSatisfy { played.ended.contains($0) })
    }
}
