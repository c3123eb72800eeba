import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

@Suite struct ProvideScheduleTests {
    func schedule() -> ProvideSchedule { ProvideSchedule(own: KadKey(hashing: syntheticPeer(-1).bytes), now: at(0)) }

    @Test func newKeysAreDueTogetherShortlyAfterTheyCame() {
        var schedule = schedule()
        #expect(schedule.add(ContentKey("a"), now: at(0)) == true)
        #expect(schedule.add(ContentKey("b"), now: at(0.05)) == true)
        #expect(schedule.add(ContentKey("a"), now: at(0.06)) == false)
        #expect(schedule.takeDue(now: at(0.07), limit: 100) == [])
        #expect(schedule.nextDue() == at(0.075))
        let taken = schedule.takeDue(now: at(0.075), limit: 100)
        #expect(Set(taken) == [ContentKey("a"), ContentKey("b")])
        #expect(schedule.takeDue(now: at(10), limit: 100) == [])
    }

    /// Runs through hours and notes when each key was announced.
    func run(_ schedule: inout ProvideSchedule, hours: Double) -> (times: [KadKey: [Double]], perMinute: [Int]) {
        var random = SplitMix64(seed: 4)
        var times: [KadKey: [Double]] = [:]
        var perMinute = [Int](repeating: 0, count: Int(hours * 60) + 1)
        let end = at(hours * 3600)
        while let due = schedule.nextDue(), due <= end {
            for key in schedule.takeDue(now: due, limit: 50) {
                let seconds = Double((due - at(0)).nanoseconds) / 1e9
                times[key.position, default: []].append(seconds)
                perMinute[Int(seconds / 60)] += 1
                schedule.completed(key.position, reached: 20, now: due, jitter: random.fraction())
            }
        }
        return (times, perMinute)
    }

    @Test func everyKeyIsRepeatedInTimeAndTheWorkIsEven() {
        var schedule = schedule()
        for number in 0..<3000 { _ = schedule.add(ContentKey("key \(number)"), now: at(0)) }
        let (times, perMinute) = run(&schedule, hours: 4)
        #expect(times.count == 3000)
        for moments in times.values {
            for (earlier, later) in zip(moments, moments.dropFirst()) {
                // Records are good for 19 minutes.
                #expect(later - earlier <= 16.1 * 60)
            }
            #expect(moments.count >= 15)
        }
        // 3000 keys in 15 minutes are 200 a minute; the first, when all are new, is another matter.
        for count in perMinute[2..<239] { #expect((100...300).contains(count)) }
    }

    @Test func nodesDoNotGoInStep() {
        let keys = (0..<400).map { ContentKey("key \($0)") }
        var total = [Int](repeating: 0, count: 61)
        for node in 0..<20 {
            var schedule = ProvideSchedule(own: KadKey(hashing: syntheticPeer(node).bytes), now: at(0))
            for key in keys { _ = schedule.add(key, now: at(0)) }
            for (minute, count) in run(&schedule, hours: 1).perMinute.enumerated() { total[minute] += count }
        }
        for count in total[2..<59] { #expect((350...720).contains(count)) }
    }

    @Test func whatReachedNobodyIsRepeatedSoonWithGrowingPauses() throws {
        var schedule = schedule()
        _ = schedule.add(ContentKey("a"), now: at(0))
        var waits: [Double] = []
        for _ in 0..<10 {
            let next = schedule.nextDue()
            let due = try #require(next)
            #expect(schedule.takeDue(now: due, limit: 1) == [ContentKey("a")])
            schedule.completed(ContentKey("a").position, reached: 0, now: due, jitter: 0.5)
            let retry = schedule.nextDue()
            waits.append(Double((try #require(retry) - due).nanoseconds) / 1e9)
        }
        #expect(waits == [2, 4, 8, 16, 32, 64, 120, 120, 120, 120])
    }

    @Test func withdrawnKeysAreNotTaken() {
        var schedule = schedule()
        _ = schedule.add(ContentKey("a"), now: at(0))
        _ = schedule.add(ContentKey("b"), now: at(0))
        #expect(schedule.remove(ContentKey("a").position) == true)
        #expect(schedule.remove(ContentKey("a").position) == false)
        #expect(schedule.takeDue(now: at(1), limit: 10) == [ContentKey("b")])
        // Withdrawn while under way: the outcome is of no consequence.
        #expect(schedule.remove(ContentKey("b").position) == true)
        schedule.completed(ContentKey("b").position, reached: 1, now: at(2), jitter: 0)
        #expect(schedule.nextDue() == nil)
        #expect(schedule.count == 0)
        // Advertised anew, it is due anew.
        #expect(schedule.add(ContentKey("b"), now: at(3)) == true)
        #expect(schedule.takeDue(now: at(4), limit: 10) == [ContentKey("b")])
    }

    @Test func whatCouldNotBeTriedIsDueAtOnce() {
        var schedule = schedule()
        _ = schedule.add(ContentKey("a"), now: at(0))
        _ = schedule.takeDue(now: at(1), limit: 10)
        schedule.putBack(ContentKey("a").position, now: at(2))
        #expect(schedule.takeDue(now: at(2), limit: 10) == [ContentKey("a")])
    }
}

@Suite struct NetworkCoverageTests {
    @Test func asManyPeersAsKnownMeansTheWholeNetwork() {
        let peers = (0..<12).map { contact($0) }
        let coverage = NetworkCoverage(
            origin: ContentKey("a").position, peers: peers, k: 20, sawEverybody: true, expires: at(0))
        for number in 0..<100 {
            let key = ContentKey("key \(number)").position
            #expect(coverage.covers(key))
            let expected = peers.sorted { $0.key.distance(to: key) < $1.key.distance(to: key) }
            #expect(coverage.nearest(to: key, k: 20) == expected)
        }
    }

    /// In a large network, the nearest peers named for a covered key are the true ones as far as the covered region
    /// reaches, and never fewer than eight of the nearest.
    @Test func coveredKeysGetTheirTrueNearestPeers() {
        let network = (0..<2000).map { contact($0) }
        func nearest(_ key: KadKey) -> [KadContact] {
            Array(network.sorted { $0.key.distance(to: key) < $1.key.distance(to: key) }.prefix(20))
        }
        var covered = 0
        for number in 0..<30 {
            let origin = ContentKey("origin \(number)").position
            let coverage = NetworkCoverage(
                origin: origin, peers: nearest(origin), k: 20, sawEverybody: true, expires: at(0))
            #expect(coverage.covers(origin))
            for other in 0..<300 {
                let key = ContentKey("key \(other)").position
                guard coverage.covers(key), key != origin else { continue }
                covered += 1
                #expect(coverage.nearest(to: key, k: 20).prefix(8) == nearest(key).prefix(8))
            }
        }
        #expect(covered > 10)
    }
}
