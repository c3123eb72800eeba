import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

@Suite struct LookupTableTests {
    var table = LookupTable()
    let key = ContentKey("x").position

    func id(_ number: Int) -> LookupID { LookupID(number: UInt64(number)) }
    func good(_: KadKey) -> PeerHealth.Standing { .good }

    @Test mutating func callersOfOneKeyShareASearch() {
        let first = table.begin(id(1), key: key, limit: 2, local: [], standing: good)
        #expect(first.deliveries.isEmpty && first.needsSearch)
        let second = table.begin(id(2), key: key, limit: 1, local: [], standing: good)
        #expect(second.deliveries.isEmpty && !second.needsSearch)
        let found = table.found([contact(1)], for: key, standing: good)
        #expect(found.deliveries == [.provider(id(1), contact(1)), .provider(id(2), contact(1)), .end(id(2))])
        #expect(!found.isSatisfied)
        // A repeated provider is delivered once; a new one ends the search.
        #expect(table.found([contact(1)], for: key, standing: good).deliveries == [])
        let more = table.found([contact(2)], for: key, standing: good)
        #expect(more.deliveries == [.provider(id(1), contact(2)), .end(id(1))])
        #expect(more.isSatisfied)
        #expect(table.callerCount == 0 && table.count == 0)
    }

    @Test mutating func aCallerThatJoinsReceivesWhatWasFoundBefore() {
        _ = table.begin(id(1), key: key, limit: 5, local: [], standing: good)
        _ = table.found([contact(1)], for: key, standing: good)
        let late = table.begin(id(2), key: key, limit: 5, local: [contact(9)], standing: good)
        #expect(late.deliveries == [.provider(id(2), contact(1))] && !late.needsSearch)
        let enough = table.begin(id(3), key: key, limit: 1, local: [], standing: good)
        #expect(enough.deliveries == [.provider(id(3), contact(1)), .end(id(3))] && !enough.needsSearch)
        #expect(table.isSearching(key))
    }

    /// The router caches nothing: a caller that asks again because the result was useless gets a new search.
    @Test mutating func afterItsEndASearchIsForgotten() {
        _ = table.begin(id(1), key: key, limit: 5, local: [], standing: good)
        _ = table.found([contact(1)], for: key, standing: good)
        #expect(table.searchEnded(key, standing: good) == [.end(id(1))])
        let again = table.begin(id(2), key: key, limit: 5, local: [], standing: good)
        #expect(again.deliveries == [] && again.needsSearch)
    }

    @Test mutating func localRecordsAreDeliveredFirst() {
        let enough = table.begin(id(1), key: key, limit: 1, local: [contact(2)], standing: good)
        #expect(enough.deliveries == [.provider(id(1), contact(2)), .end(id(1))] && !enough.needsSearch)
        let more = table.begin(id(2), key: key, limit: 3, local: [contact(2)], standing: good)
        #expect(more.deliveries == [.provider(id(2), contact(2))] && more.needsSearch)
    }

    @Test mutating func demotedPeersComeLastAndGoneOnesNot() {
        let standing: (KadKey) -> PeerHealth.Standing = { key in
            key == contact(1).key ? .demoted : key == contact(2).key ? .gone : .good
        }
        _ = table.begin(id(1), key: key, limit: 5, local: [], standing: standing)
        let found = table.found([contact(1), contact(2), contact(3)], for: key, standing: standing)
        #expect(found.deliveries == [.provider(id(1), contact(3))])
        let end = table.searchEnded(key, standing: standing)
        #expect(end == [.provider(id(1), contact(1)), .end(id(1))])
    }

    @Test mutating func providersWithoutAddressesAreDeliveredWhenTheyHaveSome() {
        _ = table.begin(id(1), key: key, limit: 5, local: [], standing: good)
        var bare = contact(1)
        bare.addresses = []
        #expect(table.found([bare], for: key, standing: good).deliveries == [])
        #expect(table.found([contact(1)], for: key, standing: good).deliveries == [.provider(id(1), contact(1))])
    }

    @Test mutating func aSearchEndsWithItsLastCaller() {
        _ = table.begin(id(1), key: key, limit: 5, local: [], standing: good)
        _ = table.begin(id(2), key: key, limit: 5, local: [], standing: good)
        #expect(table.cancel(id(1)) == nil)
        #expect(table.found([contact(1)], for: key, standing: good).deliveries == [.provider(id(2), contact(1))])
        #expect(table.cancel(id(2)) == key)
        #expect(table.cancel(id(2)) == nil)
        #expect(table.found([contact(2)], for: key, standing: good).deliveries == [])
        #expect(table.count == 0 && table.callerCount == 0)
    }

    @Test func sizesAreBounded() {
        var limits = LookupTable.Limits()
        limits.callers = 10
        limits.providersPerKey = 5
        var table = LookupTable(limits: limits)
        for number in 0..<1000 {
            let key = ContentKey("\(number)").position
            let begun = table.begin(id(number), key: key, limit: 1, local: [], standing: good)
            // Beyond the limit of callers the answer is what is known locally: nothing.
            if number >= 10 { #expect(begun.deliveries == [.end(id(number))] && !begun.needsSearch) }
        }
        #expect(table.callerCount == 10)
        #expect(table.count == 10)
        let key = ContentKey("all").position
        #expect(table.cancel(id(0)) != nil)
        _ = table.begin(id(2000), key: key, limit: 0, local: [], standing: good)
        let found = table.found((0..<50).map { contact($0) }, for: key, standing: good)
        #expect(found.deliveries.count == 5)
    }
}
