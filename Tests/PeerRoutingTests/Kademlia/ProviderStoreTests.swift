import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

@Suite struct ProviderStoreTests {
    let own = KadKey(hashing: syntheticPeer(-1).bytes)

    func store(_ change: (inout ProviderStore.Limits) -> Void = { _ in }) -> ProviderStore {
        var limits = ProviderStore.Limits()
        change(&limits)
        return ProviderStore(own: own, limits: limits, now: at(0))
    }

    func key(_ number: Int) -> KadKey { ContentKey("key \(number)").position }

    @Test func recordsLastNineteenMinutesFromTheLastAnnouncement() {
        var store = store()
        #expect(store.add(key(1), provider: contact(1), now: at(0)) == .added)
        #expect(store.add(key(1), provider: contact(2), now: at(0)) == .added)
        #expect(store.add(key(1), provider: contact(2), now: at(600)) == .refreshed)
        #expect(store.providers(of: key(1), now: at(19 * 60 - 1)) == [contact(1), contact(2)])
        #expect(store.providers(of: key(1), now: at(19 * 60 + 1)) == [contact(2)])
        #expect(store.providers(of: key(1), now: at(29 * 60 + 1)).isEmpty)
        #expect(store.providers(of: key(2), now: at(0)).isEmpty)
    }

    @Test func sweepingFreesWhatHasExpired() {
        var store = store()
        for number in 0..<500 { _ = store.add(key(number), provider: contact(number % 7), now: at(0)) }
        for number in 500..<600 { _ = store.add(key(number), provider: contact(9), now: at(1000)) }
        #expect(store.count == 600 && store.providerCount == 8)
        for _ in 0..<ProviderStore.portions { store.sweepPortion(now: at(20 * 60)) }
        #expect(store.count == 100 && store.providerCount == 1)
        // Freed numbers are used again, for other providers.
        _ = store.add(key(1), provider: contact(3), now: at(1300))
        #expect(store.providers(of: key(1), now: at(1300)) == [contact(3)])
        #expect(store.providers(of: key(550), now: at(1300)) == [contact(9)])
    }

    @Test func aKeyKeepsAtMostTwoThousandProviders() {
        var store = store()
        var outcomes: [ProviderStore.Outcome: Int] = [:]
        for number in 0..<10_000 {
            outcomes[store.add(key(1), provider: contact(number), now: at(0)), default: 0] += 1
        }
        #expect(outcomes == [.added: 2000, .keyFull: 8000])
        #expect(store.providers(of: key(1), now: at(1)).count == 2000)
        #expect(store.providerCount == 2000)
        // A peer known to be alive is not shut out by invented ones.
        let real = contact(20_000)
        #expect(store.add(key(1), provider: real, isTrusted: { $0 == real.key }, now: at(1)) == .added)
        #expect(store.providers(of: key(1), now: at(1)).contains(real))
        #expect(store.count == 2000)
    }

    @Test func aProviderHasAtMostItsShare() {
        var store = store { $0.perProvider = 50 }
        for number in 0..<60 {
            let expected: ProviderStore.Outcome = number < 50 ? .added : .providerFull
            #expect(store.add(key(number), provider: contact(1), now: at(0)) == expected)
        }
        #expect(store.add(key(3), provider: contact(1), now: at(5)) == .refreshed)
        #expect(store.add(key(55), provider: contact(2), now: at(5)) == .added)
    }

    @Test func aFullStorePrefersKeysNearUs() {
        var store = store { $0.total = 2000 }
        for number in 0..<20_000 { _ = store.add(key(number), provider: contact(number % 50), now: at(0)) }
        #expect(store.count <= 2000)
        var kept: [Int: Int] = [:]
        var offered: [Int: Int] = [:]
        for number in 0..<20_000 {
            let depth = own.commonPrefixLength(with: key(number))
            offered[depth, default: 0] += 1
            if !store.providers(of: key(number), now: at(1)).isEmpty { kept[depth, default: 0] += 1 }
        }
        // 2000 of 20,000 fit: about those that share three bits with us, and all that share more than five.
        for depth in 6...10 { #expect(kept[depth] == offered[depth]) }
        #expect((kept[0] ?? 0) < 100)
    }

    @Test func aDepartedProviderIsGoneAtOnceAndMayReturn() {
        var store = store()
        for number in 0..<100 {
            _ = store.add(key(number), provider: contact(1), now: at(0))
            _ = store.add(key(number), provider: contact(2), now: at(0))
        }
        store.removeAll(of: contact(1).key)
        #expect(store.providers(of: key(5), now: at(1)) == [contact(2)])
        #expect(store.add(key(5), provider: contact(1), now: at(2)) == .added)
        #expect(store.providers(of: key(5), now: at(3)) == [contact(2), contact(1)])
        for _ in 0..<ProviderStore.portions { store.sweepPortion(now: at(4)) }
        #expect(store.count == 101 && store.providerCount == 2)
        #expect(store.providers(of: key(5), now: at(5)) == [contact(2), contact(1)])
    }

    @Test func addressesAreForgottenAfterAnHour() {
        var store = store { $0.validity = .hours(3) }
        _ = store.add(key(1), provider: contact(1), now: at(0))
        #expect(store.providers(of: key(1), now: at(3599)) == [contact(1)])
        #expect(store.providers(of: key(1), now: at(3601)).map(\.addresses) == [[]])
        store.setAddresses(contact(7).addresses, of: contact(1).key, now: at(4000))
        #expect(store.providers(of: key(1), now: at(4001)).map(\.addresses) == [contact(7).addresses])
    }

    /// A long random history agrees with a plain list of records.
    @Test func agreesWithASimpleModel() {
        var random = SplitMix64(seed: 21)
        var store = store { $0.validity = .seconds(100) }
        var model: [String: Double] = [:]
        var time = 0.0
        for _ in 0..<5000 {
            time += Double.random(in: 0...0.5, using: &random)
            let number = Int.random(in: 0..<40, using: &random)
            let provider = Int.random(in: 0..<12, using: &random)
            switch Int.random(in: 0..<20, using: &random) {
            case 0:
                store.removeAll(of: contact(provider).key)
                model = model.filter { !$0.key.hasSuffix("/\(provider)") }
            case 1:
                store.sweepPortion(now: at(time))
            case 2..<8:
                let expected = (0..<12).filter { (model["\(number)/\($0)"] ?? 0) > time + 0.2 }
                let surely = Set(expected.map { contact($0).key })
                let found = Set(store.providers(of: key(number), now: at(time)).map(\.key))
                let possibly = Set(
                    (0..<12).filter { (model["\(number)/\($0)"] ?? 0) > time - 0.2 }.map { contact($0).key })
                #expect(found.isSuperset(of: surely) && found.isSubset(of: possibly))
            default:
                _ = store.add(key(number), provider: contact(provider), now: at(time))
                model["\(number)/\(provider)"] = time + 100
            }
        }
    }
}
