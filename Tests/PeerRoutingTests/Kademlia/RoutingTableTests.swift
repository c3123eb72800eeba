import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

@Suite struct RoutingTableTests {
    let own = syntheticPeer(-1)
    var ownKey: KadKey { KadKey(hashing: own.bytes) }

    @Test func aMachineWithManyIdentitiesHasFourEntries() {
        var table = RoutingTable(own: KadKey(hashing: [0]))
        let machine = IPAddress.v4(0x0a09_0909)
        for number in 0..<200 { _ = table.admit(contact(number), from: machine, now: at(0)) }
        #expect(table.count == 4)
        #expect(!table.hasRoom(for: contact(500).key, from: machine, now: at(0)))
        for number in 300..<310 {
            #expect(table.hasRoom(for: contact(number).key, from: .v4(UInt32(number)), now: at(0)))
            #expect(table.admit(contact(number), from: .v4(UInt32(number)), now: at(0)) == .added)
        }
        // One that goes leaves room for another.
        let gone = table.entries.first { $0.source == machine }
        #expect(gone.map { table.remove($0.key) } == true)
        #expect(table.hasRoom(for: contact(500).key, from: machine, now: at(0)))
        #expect(table.nearest(to: contact(1).key, limit: 20, perSource: 1).count == 11)
    }

    @Test func nearestAgreesWithSortingEverything() {
        var random = SplitMix64(seed: 3)
        var table = RoutingTable(own: ownKey)
        var members: [KadContact] = []
        for number in 0..<300 where table.admit(contact(number), now: at(0)) == .added {
            members.append(contact(number))
        }
        #expect(table.count == members.count)
        for round in 0..<200 {
            let target = KadKey(hashing: syntheticPeer(1000 + round).bytes)
            let limit = Int.random(in: 1...40, using: &random)
            let excluded = members.randomElement(using: &random)?.key
            let expected = members.filter { $0.key != excluded }
                .sorted { $0.key.distance(to: target) < $1.key.distance(to: target) }.prefix(limit)
            #expect(table.nearest(to: target, limit: limit, excluding: excluded) == Array(expected))
        }
        // Targets right beside us reach the deepest buckets.
        let expected = members.sorted { $0.key.distance(to: ownKey) < $1.key.distance(to: ownKey) }.prefix(20)
        #expect(table.nearest(to: ownKey, limit: 20) == Array(expected))
    }

    /// Contacts of one bucket, as many as asked for.
    func bucket(_ index: Int, _ count: Int) -> [KadContact] {
        var result: [KadContact] = []
        var number = 5000
        while result.count < count {
            let candidate = contact(number)
            if ownKey.commonPrefixLength(with: candidate.key) == index { result.append(candidate) }
            number += 1
        }
        return result
    }

    @Test func liveEntriesAreNotGivenUpForNewcomers() {
        var table = RoutingTable(own: ownKey)
        let peers = bucket(0, 22)
        for peer in peers.prefix(20) { #expect(table.admit(peer, now: at(0)) == .added) }
        #expect(!table.hasRoom(for: peers[20].key, now: at(60)))
        #expect(table.admit(peers[20], now: at(60)) == .full)
        #expect(table.count == 20)
    }

    @Test func theLongestSilentGivesWay() {
        var table = RoutingTable(own: ownKey)
        let peers = bucket(0, 21)
        for (index, peer) in peers.prefix(20).enumerated() { _ = table.admit(peer, now: at(Double(index))) }
        table.heard(from: peers[0].key, now: at(1000))
        let late = at(20 * 60 + 2)
        #expect(table.hasRoom(for: peers[20].key, now: late))
        #expect(table.admit(peers[20], now: late) == .replaced(peers[1].id))
        #expect(table.count == 20)
        #expect(table.contains(peers[0].key) && !table.contains(peers[1].key))
    }

    @Test func oneselfIsNeverAnEntry() {
        var table = RoutingTable(own: ownKey)
        #expect(table.admit(KadContact(id: own), now: at(0)) == .full)
        #expect(!table.hasRoom(for: ownKey, now: at(0)))
        #expect(table.isEmpty)
    }

    @Test func silentEntriesAreFoundLongestFirst() {
        var table = RoutingTable(own: ownKey)
        for number in 0..<5 { _ = table.admit(contact(number), now: at(Double(10 - number))) }
        #expect(table.silent(since: at(8.5)).map(\.contact.id) == [4, 3, 2].map { syntheticPeer($0) })
        #expect(table.remove(contact(4).key) == true)
        #expect(table.remove(contact(4).key) == false)
        #expect(table.count == 4)
    }
}
