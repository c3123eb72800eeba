import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

@Suite struct IterativeQueryTests {
    let target = KadKey(hashing: [1, 2, 3])
    let own = KadKey(hashing: syntheticPeer(-1).bytes)

    func sorted(_ contacts: [KadContact]) -> [KadContact] {
        contacts.sorted { $0.key.distance(to: target) < $1.key.distance(to: target) }
    }

    func query(_ seeds: [KadContact], _ change: (inout IterativeQuery.Limits) -> Void = { _ in }) -> IterativeQuery {
        var limits = IterativeQuery.Limits()
        change(&limits)
        return IterativeQuery(target: target, own: own, seeds: seeds, limits: limits)
    }

    @Test func asksTheNearestFirstAndAtMostAlphaAtOnce() {
        let peers = (0..<30).map { contact($0) }
        var query = query(peers)
        #expect(query.nextRequests(now: at(0)) == Array(sorted(peers).prefix(10)))
        #expect(query.nextRequests(now: at(0)) == [])
        query.failed(sorted(peers)[0].key)
        #expect(query.nextRequests(now: at(0)) == [sorted(peers)[10]])
    }

    @Test func endsWhenTheNearestThreeAnsweredAndAsksTheRestOfTheTwentyOnce() {
        let peers = sorted((0..<30).map { contact($0) })
        var query = query(peers)
        _ = query.nextRequests(now: at(0))
        for peer in peers.prefix(3) { query.answered(peer.key, closer: []) }
        // The follow-up: 11th to 20th, as the first ten have been asked.
        #expect(query.nextRequests(now: at(0)) == Array(peers[10..<20]))
        for peer in peers[3..<20] { query.answered(peer.key, closer: []) }
        #expect(query.nextRequests(now: at(0)) == [])
        #expect(query.isFinished)
        #expect(query.result == Array(peers.prefix(20)))
        #expect(query.requestsSent == 20)
    }

    /// Forty identities of one machine are nearest; whether they say so or claim addresses of their own, two of them count.
    @Test(arguments: [true, false]) func ofOneSourceOnlyTwoCount(theySaySo: Bool) {
        let all = sorted((0..<70).map { contact($0) })
        let machine = IPAddress.v4(0x0a09_0909)
        let sybils = all.prefix(40).map { peer in
            theySaySo ? KadContact(id: peer.id, addresses: [Multiaddr(machine, tcpPort: 5001)]) : peer
        }
        let honest = Array(all.dropFirst(40))
        let isSybil = Set(sybils.map(\.key))
        var query = query(sybils + honest)
        while case let requests = query.nextRequests(now: at(0)), !requests.isEmpty {
            for peer in requests {
                let own = peer.addresses.first?.ipAddress
                query.answered(peer.key, source: isSybil.contains(peer.key) ? machine : own, closer: sybils)
            }
        }
        #expect(query.isFinished)
        #expect(query.result.count == 20)
        #expect(query.result.count { isSybil.contains($0.key) } == 2)
        #expect(Array(query.result.dropFirst(2)) == Array(honest.prefix(18)))
    }

    @Test func followsTheChainOfCloserPeersAndCountsIt() {
        let chain = sorted((0..<6).map { contact($0) }).reversed().map { $0 }
        var query = query([chain[0]])
        for index in chain.indices {
            #expect(query.nextRequests(now: at(0)) == [chain[index]])
            query.answered(chain[index].key, closer: index + 1 < chain.count ? [chain[index + 1]] : [])
        }
        #expect(query.nextRequests(now: at(0)) == [])
        #expect(query.isFinished)
        #expect(query.depth == 6)
        #expect(query.depth(of: chain[2].key) == 3)
    }

    @Test func oneselfAndKnownPeersAreNotAskedAgain() {
        let peers = sorted((0..<3).map { contact($0) })
        var query = query([peers[2]])
        _ = query.nextRequests(now: at(0))
        query.answered(peers[2].key, closer: [KadContact(id: syntheticPeer(-1)), peers[2], peers[1], peers[1]])
        #expect(query.nextRequests(now: at(0)) == [peers[1]])
    }

    @Test func deadPeersHoldTheSearchUpOnlyUntilTheyStall() {
        let peers = sorted((0..<25).map { contact($0) })
        var query = query(peers)
        let first = query.nextRequests(now: at(0))
        // The nearest is silent, all others answer.
        for peer in first.dropFirst() { query.answered(peer.key, closer: []) }
        for peer in query.nextRequests(now: at(0)) { query.answered(peer.key, closer: []) }
        #expect(!query.isFinished)
        #expect(query.nextStall == at(0.4))
        query.markStalled(now: at(0.4))
        for peer in query.nextRequests(now: at(0.4)) { query.answered(peer.key, closer: []) }
        for _ in 0..<5 { for peer in query.nextRequests(now: at(0.5)) { query.answered(peer.key, closer: []) } }
        #expect(query.isFinished)
        // The twenty nearest that answer: the silent one made room for the 21st.
        #expect(query.result == Array(peers[1...20]))
    }

    @Test func whenEverybodyIsSlowTheSearchWaits() {
        let peers = sorted((0..<4).map { contact($0) })
        var query = query(peers)
        _ = query.nextRequests(now: at(0))
        query.markStalled(now: at(1))
        #expect(query.nextRequests(now: at(1)) == [])
        #expect(!query.isFinished)
        query.answered(peers[1].key, closer: [])
        #expect(query.nextRequests(now: at(2)) == [])
        #expect(query.isFinished)
        #expect(query.result == [peers[1]])
    }

    @Test func aPeerThatNamesNobodyRealIsNotBelieved() {
        let peers = sorted((0..<100).map { contact($0) })
        let liar = peers[98]
        let honest = peers[99]
        let invented = Array(peers[0..<40])
        let real = peers[50]
        var query = query([liar, honest]) { $0.beta = 3 }
        _ = query.nextRequests(now: at(0))
        query.answered(liar.key, closer: invented)
        query.answered(honest.key, closer: [real])
        #expect(query.nextRequests(now: at(0)) == Array(invented.prefix(10)))
        for peer in invented.prefix(3) { query.failed(peer.key) }
        // The rest of the inventions is no longer asked; the real peer is.
        #expect(query.nextRequests(now: at(0)) == [real])
        query.answered(real.key, closer: [invented[20]])
        #expect(query.nextRequests(now: at(0)) == [invented[20]])
    }

    @Test func workIsBounded() {
        // Every answer names forty new peers, each nearer than all before.
        let universe = sorted((0..<12000).map { contact($0) })
        var query = query(Array(universe.suffix(20)))
        var next = universe.count - 20
        var rounds = 0
        while !query.isFinished, rounds < 1000 {
            rounds += 1
            for peer in query.nextRequests(now: at(0)) {
                query.answered(peer.key, closer: Array(universe[max(0, next - 60)..<next]))
                next = max(60, next - 40)
            }
        }
        #expect(query.isFinished)
        #expect(query.requestsSent <= 200)
    }

    @Test func withoutSeedsItEndsAtOnce() {
        var query = query([])
        #expect(query.nextRequests(now: at(0)) == [])
        #expect(query.isFinished)
        #expect(query.result.isEmpty)
    }
}
