import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

@Suite struct LookupCacheTests {
    var cache = LookupCache()
    let key = ContentKey("x").position

    func id(_ number: Int) -> LookupID { LookupID(number: UInt64(number)) }
    func good(_: KadKey) -> PeerHealth.Standing { .good }

    @Test mutating func callersOfOneKeyShareASearch() {
        let first = cache.begin(id(1), key: key, limit: 2, local: [], now: at(0), standing: good)
        #expect(first.deliveries.isEmpty && first.needsSearch)
        let second = cache.begin(id(2), key: key, limit: 1, local: [], now: at(0), standing: good)
        #expect(second.deliveries.isEmpty && !second.needsSearch)
        let found = cache.found([contact(1)], for: key, now: at(0.1), standing: good)
        #expect(found.deliveries == [.provider(id(1), contact(1)), .provider(id(2), contact(1)), .end(id(2))])
        #expect(!found.isSatisfied)
        // A repeated provider is told to nobody twice; a new one ends the first search.
        #expect(cache.found([contact(1)], for: key, now: at(0.1), standing: good).deliveries == [])
        let more = cache.found([contact(2)], for: key, now: at(0.2), standing: good)
        #expect(more.deliveries == [.provider(id(1), contact(2)), .end(id(1))])
        #expect(more.isSatisfied)
        #expect(cache.waiterCount == 0)
    }

    mutating func searchedAndFound(_ contacts: [KadContact], isExhaustive: Bool = true) {
        _ = cache.begin(id(100), key: key, limit: 0, local: [], now: at(0), standing: good)
        _ = cache.found(contacts, for: key, now: at(0), standing: good)
        _ = cache.searchEnded(key, isExhaustive: isExhaustive, now: at(0), standing: good)
    }

    @Test mutating func resultsAreAnsweredForFiveSeconds() {
        searchedAndFound([contact(1)])
        let soon = cache.begin(id(1), key: key, limit: 3, local: [], now: at(2.4), standing: good)
        #expect(soon.deliveries == [.provider(id(1), contact(1)), .end(id(1))])
        #expect(!soon.needsSearch)
        let enough = cache.begin(id(2), key: key, limit: 1, local: [], now: at(4.9), standing: good)
        #expect(enough.deliveries == [.provider(id(2), contact(1)), .end(id(2))])
        #expect(!enough.needsSearch)
        // Older than 2.5 s and shorter than wanted: told at once, and searched again.
        let short = cache.begin(id(3), key: key, limit: 3, local: [], now: at(2.6), standing: good)
        #expect(short.deliveries == [.provider(id(3), contact(1))])
        #expect(short.needsSearch)
    }

    @Test mutating func afterFiveSecondsOnlyLocalRecordsCount() {
        searchedAndFound([contact(1)])
        let late = cache.begin(id(1), key: key, limit: 3, local: [contact(2)], now: at(5.1), standing: good)
        #expect(late.deliveries == [.provider(id(1), contact(2))])
        #expect(late.needsSearch)
    }

    @Test mutating func missesAreBelievedForASecondOrUntilSomebodyProvides() {
        searchedAndFound([])
        let again = cache.begin(id(1), key: key, limit: 1, local: [contact(9)], now: at(0.9), standing: good)
        #expect(again.deliveries == [.end(id(1))] && !again.needsSearch)
        _ = cache.found([contact(1)], for: key, now: at(0.95), standing: good)
        let provided = cache.begin(id(2), key: key, limit: 1, local: [], now: at(0.97), standing: good)
        #expect(provided.deliveries == [.provider(id(2), contact(1)), .end(id(2))])
        var other = LookupCacheTests()
        other.searchedAndFound([])
        let later = other.cache.begin(id(1), key: key, limit: 1, local: [], now: at(1.1), standing: good)
        #expect(later.needsSearch)
    }

    @Test mutating func demotedPeersComeLastAndGoneOnesNot() {
        let standing: (KadKey) -> PeerHealth.Standing = { key in
            key == contact(1).key ? .demoted : key == contact(2).key ? .gone : .good
        }
        _ = cache.begin(id(1), key: key, limit: 5, local: [], now: at(0), standing: standing)
        let found = cache.found([contact(1), contact(2), contact(3)], for: key, now: at(0), standing: standing)
        #expect(found.deliveries == [.provider(id(1), contact(3))])
        let end = cache.searchEnded(key, isExhaustive: true, now: at(1), standing: standing)
        #expect(end == [.provider(id(1), contact(1)), .end(id(1))])
    }

    @Test mutating func providersWithoutAddressesAreToldWhenTheyHaveSome() {
        _ = cache.begin(id(1), key: key, limit: 5, local: [], now: at(0), standing: good)
        var bare = contact(1)
        bare.addresses = []
        #expect(cache.found([bare], for: key, now: at(0), standing: good).deliveries == [])
        #expect(
            cache.found([contact(1)], for: key, now: at(0), standing: good).deliveries
                == [.provider(id(1), contact(1))])
    }

    @Test mutating func aCallerThatLeavesIsToldNothing() {
        _ = cache.begin(id(1), key: key, limit: 5, local: [], now: at(0), standing: good)
        cache.cancel(id(1))
        #expect(cache.found([contact(1)], for: key, now: at(0), standing: good).deliveries == [])
        #expect(cache.searchEnded(key, isExhaustive: true, now: at(0), standing: good) == [])
        // What was found meanwhile serves the next.
        let next = cache.begin(id(2), key: key, limit: 1, local: [], now: at(1), standing: good)
        #expect(next.deliveries == [.provider(id(2), contact(1)), .end(id(2))])
    }

    @Test func sizesAreBounded() {
        var limits = LookupCache.Limits()
        limits.keys = 100
        limits.waiters = 10
        limits.providersPerKey = 5
        var cache = LookupCache(limits: limits)
        for number in 0..<1000 {
            let key = ContentKey("\(number)").position
            let begun = cache.begin(id(number), key: key, limit: 1, local: [], now: at(Double(number)), standing: good)
            // Beyond the waiters allowed the answer is what is known: nothing.
            if number >= 10 { #expect(begun.deliveries == [.end(id(number))]) }
        }
        #expect(cache.waiterCount == 10)
        #expect(cache.count <= 100)
        _ = cache.found((0..<50).map { contact($0) }, for: ContentKey("3").position, now: at(1000), standing: good)
        #expect(cache.waiterCount == 9)
    }
}
