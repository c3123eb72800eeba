import NIOCore
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

@Suite struct RaceMachineTests {
    typealias Race = RaceMachine<String>

    private func race(
        attempts: Int = 3, deadline: NIODeadline? = nil, ranks: [String: Int] = [:]
    ) -> Race {
        Race(limits: .init(attempts: attempts, lookupDeadline: at(20), deadline: deadline)) { ranks[$0] ?? 0 }
    }

    /// `a` is a last resort.
    private func willingness(_ peer: String) -> Race.Preference { peer == "a" ? .lastResort : .normal }

    private func hedge(_ concurrent: Int) -> TimeAmount { .milliseconds(Int64(40 + concurrent * 10)) }

    @Test func theFirstPeerIsAskedAtOnceAndWins() {
        var race = race()
        #expect(race.found(["a"], now: at(0), hedgeDelay: hedge) == [.start(0, "a")])
        #expect(race.found(["a"], now: at(1), hedgeDelay: hedge) == [])
        #expect(race.answered(0) == [.raceWon(0, "a")])
        #expect(race.isOver)
        #expect(race.nextDeadline == nil)
        #expect(race.failed(0, .refused, now: at(2), hedgeDelay: hedge) == [])
    }

    @Test func aLookupThatIsQueuedIsWaitedForUntilItHasBegun() {
        var race = Race(limits: .init(attempts: 3, deadline: at(3000))) { _ in 0 }
        #expect(race.nextDeadline == at(3000))
        #expect(race.timePassed(now: at(2000), hedgeDelay: hedge) == [])
        race.lookupStarted(deadline: at(2020))
        #expect(race.nextDeadline == at(2020))
        #expect(race.timePassed(now: at(2020), hedgeDelay: hedge) == [.fail(.noPeers)])
    }

    @Test func aSlowPeerIsHedgedAndTheLoserCancelled() {
        var race = race()
        _ = race.found(["a"], now: at(0), hedgeDelay: hedge)
        #expect(race.found(["b"], now: at(1), hedgeDelay: hedge) == [])
        #expect(race.nextDeadline == at(50))
        #expect(race.timePassed(now: at(49), hedgeDelay: hedge) == [])
        #expect(race.timePassed(now: at(50), hedgeDelay: hedge) == [.start(1, "b")])
        #expect(race.answered(1) == [.cancel(0), .raceWon(1, "b")])
    }

    @Test func aPeerFoundAfterTheHedgeDelayIsAskedAtOnce() {
        var race = race()
        _ = race.found(["a"], now: at(0), hedgeDelay: hedge)
        #expect(race.nextDeadline == nil)
        #expect(race.found(["b"], now: at(70), hedgeDelay: hedge) == [.start(1, "b")])
    }

    @Test func aFailureStartsTheNextAtOnce() {
        var race = race()
        _ = race.found(["a"], now: at(0), hedgeDelay: hedge)
        _ = race.found(["b"], now: at(0), hedgeDelay: hedge)
        #expect(race.failed(0, .refused, now: at(2), hedgeDelay: hedge) == [.start(1, "b")])
    }

    @Test func thePreferredPeerIsAskedFirst() {
        var race = race(ranks: ["a": 5, "b": 3, "c": 1])
        #expect(race.found(["a"], now: at(0), hedgeDelay: hedge) == [.start(0, "a")])
        _ = race.found(["b"], now: at(0), hedgeDelay: hedge)
        _ = race.found(["c"], now: at(0), hedgeDelay: hedge)
        #expect(race.failed(0, .refused, now: at(1), hedgeDelay: hedge) == [.start(1, "c")])
        #expect(race.failed(1, .refused, now: at(1), hedgeDelay: hedge) == [.start(2, "b")])
    }

    @Test func withoutPeersItEndsAtTheLookupDeadlineOrWithTheLookup() {
        var race = race()
        #expect(race.nextDeadline == at(20))
        #expect(race.timePassed(now: at(19), hedgeDelay: hedge) == [])
        #expect(race.timePassed(now: at(20), hedgeDelay: hedge) == [.fail(.noPeers)])
        var other = self.race()
        #expect(other.lookupEnded(now: at(3), hedgeDelay: hedge) == [.fail(.noPeers)])
    }

    @Test func anAttemptUnderWayIsNeverGivenUpForTheLookupDeadline() {
        var race = race()
        _ = race.found(["a"], now: at(0), hedgeDelay: hedge)
        #expect(race.lookupEnded(now: at(5), hedgeDelay: hedge) == [])
        #expect(race.timePassed(now: at(100_000), hedgeDelay: hedge) == [])
        #expect(!race.isOver)
        #expect(race.failed(0, .refused, now: at(100_001), hedgeDelay: hedge) == [.fail(.exhausted)])
    }

    @Test func afterAFailureMorePeersAreWaitedForUntilTheLookupDeadline() {
        var race = race()
        _ = race.found(["a"], now: at(0), hedgeDelay: hedge)
        #expect(race.failed(0, .refused, now: at(5), hedgeDelay: hedge) == [])
        #expect(race.nextDeadline == at(20))
        #expect(race.found(["b"], now: at(10), hedgeDelay: hedge) == [.start(1, "b")])
        #expect(race.failed(1, .refused, now: at(25), hedgeDelay: hedge) == [.fail(.exhausted)])
    }

    @Test func attemptsAreBounded() {
        var race = race(attempts: 2)
        for name in ["a", "b", "c"] { _ = race.found([name], now: at(0), hedgeDelay: hedge) }
        #expect(race.failed(0, .refused, now: at(1), hedgeDelay: hedge) == [.start(1, "b")])
        #expect(race.failed(1, .refused, now: at(2), hedgeDelay: hedge) == [.fail(.exhausted)])
    }

    @Test func unreachablePeersDoNotCountButAreBoundedToo() {
        var race = race(attempts: 2)
        for number in 0..<20 { _ = race.found(["\(number)"], now: at(0), hedgeDelay: hedge) }
        for number in 0..<7 {
            #expect(
                race.failed(number, .unreachable, now: at(1), hedgeDelay: hedge)
                    == [.start(number + 1, "\(number + 1)")])
        }
        #expect(race.failed(7, .unreachable, now: at(1), hedgeDelay: hedge) == [.fail(.exhausted)])
    }

    @Test func aBusyPeerIsAskedOnceMoreAfterAPause() {
        var race = race()
        _ = race.found(["a"], now: at(0), hedgeDelay: hedge)
        _ = race.lookupEnded(now: at(0), hedgeDelay: hedge)
        #expect(race.failed(0, .busy, now: at(10), hedgeDelay: hedge) == [])
        #expect(race.nextDeadline == at(60))
        #expect(race.timePassed(now: at(60), hedgeDelay: hedge) == [.start(1, "a")])
        #expect(race.failed(1, .busy, now: at(70), hedgeDelay: hedge) == [.fail(.exhausted)])
    }

    @Test func aLastResortWaitsForTheLookupToBringSomebodyBetter() {
        var race = race()
        #expect(race.found(["a"], now: at(0), hedgeDelay: hedge, preference: willingness) == [])
        #expect(race.nextDeadline == at(250))
        #expect(race.found(["b"], now: at(5), hedgeDelay: hedge, preference: willingness) == [.start(0, "b")])
        // Slowness is no reason: whoever broke off before would be quick to answer again.
        #expect(race.nextDeadline == nil)
        #expect(race.timePassed(now: at(3000), hedgeDelay: hedge) == [])
        #expect(race.failed(0, .refused, now: at(3001), hedgeDelay: hedge) == [.start(1, "a")])
    }

    @Test func aLastResortIsAskedWhenThereIsNobodyElse() {
        var race = race()
        #expect(race.found(["a"], now: at(0), hedgeDelay: hedge, preference: willingness) == [])
        #expect(race.lookupEnded(now: at(3), hedgeDelay: hedge) == [.start(0, "a")])
        var slow = self.race()
        #expect(slow.found(["a"], now: at(0), hedgeDelay: hedge, preference: willingness) == [])
        #expect(slow.timePassed(now: at(249), hedgeDelay: hedge) == [])
        #expect(slow.timePassed(now: at(250), hedgeDelay: hedge) == [.start(0, "a")])
    }

    @Test func whoIsAskedReluctantlyLetsOthersGoFirstForAMoment() {
        func deprioritized(_: String) -> Race.Preference { .deprioritized }
        var race = race()
        #expect(race.found(["a"], now: at(0), hedgeDelay: hedge, preference: deprioritized) == [])
        #expect(race.nextDeadline == at(50))
        #expect(race.found(["b"], now: at(10), hedgeDelay: hedge) == [.start(0, "b")])
        // It races as others do.
        #expect(race.nextDeadline == at(60))
        #expect(race.timePassed(now: at(60), hedgeDelay: hedge) == [.start(1, "a")])
        var alone = self.race()
        #expect(alone.found(["a"], now: at(0), hedgeDelay: hedge, preference: deprioritized) == [])
        #expect(alone.timePassed(now: at(50), hedgeDelay: hedge) == [.start(0, "a")])
        var known = self.race()
        #expect(known.found(["a"], now: at(0), hedgeDelay: hedge, preference: deprioritized) == [])
        #expect(known.lookupEnded(now: at(0), hedgeDelay: hedge) == [.start(0, "a")])
    }

    @Test func aLastResortWaitsForWhoIsBusy() {
        var race = race()
        _ = race.found(["a", "b"], now: at(0), hedgeDelay: hedge, preference: willingness)
        _ = race.lookupEnded(now: at(1), hedgeDelay: hedge)
        #expect(race.failed(0, .busy, now: at(2), hedgeDelay: hedge) == [])
        #expect(race.nextDeadline == at(52))
        #expect(race.timePassed(now: at(52), hedgeDelay: hedge) == [.start(1, "b")])
        #expect(race.failed(1, .busy, now: at(60), hedgeDelay: hedge) == [.start(2, "a")])
    }

    @Test func theDeadlineEndsEverything() {
        var race = race(deadline: at(3000))
        _ = race.found(["a"], now: at(0), hedgeDelay: hedge)
        #expect(race.nextDeadline == at(3000))
        #expect(race.timePassed(now: at(3000), hedgeDelay: hedge) == [.cancel(0), .fail(.deadline)])
    }

    @Test func cancellingEndsWhatIsUnderWay() {
        var race = race()
        _ = race.found(["a"], now: at(0), hedgeDelay: hedge)
        #expect(race.cancel() == [.cancel(0)])
        #expect(race.answered(0) == [])
        #expect(race.found(["b"], now: at(1), hedgeDelay: hedge) == [])
    }

    /// Whatever happens in whatever order: a race ends once, with nothing left under way, within its bounds, and it is
    /// never lost while an attempt is under way and the deadline has not passed.
    @Test(arguments: 0..<200)
    func anyOrderOfEventsEndsOnce(seed: Int) {
        var random = SplitMix64(seed: UInt64(seed))
        let attempts = Int.random(in: 1...4, using: &random)
        let deadline = Bool.random(using: &random) ? at(5000) : nil
        var race = race(attempts: attempts, deadline: deadline)
        var running: Set<Int> = []
        var ends = 0
        var starts = 0
        var now: Int64 = 0
        var lookupEnded = false
        let lastResorts: Set<String> = seed % 2 == 0 ? ["p1", "p2", "p5"] : []
        func willingness(_ peer: String) -> Race.Preference {
            if lastResorts.contains(peer) { return .lastResort }
            return peer == "p3" ? .deprioritized : .normal
        }
        func take(_ actions: [Race.Action], because event: String) {
            for action in actions {
                switch action {
                case .start(let id, let peer):
                    #expect(running.insert(id).inserted)
                    #expect(!lastResorts.contains(peer) || running.count == 1)
                    starts += 1
                case .cancel(let id): #expect(running.remove(id) != nil)
                case .raceWon(let id, _):
                    #expect(running.remove(id) != nil)
                    ends += 1
                case .fail(let defeat):
                    ends += 1
                    if defeat != .deadline { #expect(running.isEmpty, "\(event)") }
                }
            }
        }
        for step in 0..<400 where !race.isOver {
            now += Int64.random(in: 0...30, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0 where !lookupEnded:
                take(
                    race.found(["p\(step % 7)"], now: at(now), hedgeDelay: hedge, preference: willingness),
                    because: "found")
            case 1 where step > 20 && !lookupEnded:
                lookupEnded = true
                take(race.lookupEnded(now: at(now), hedgeDelay: hedge), because: "lookup")
            case 2, 3:
                if let id = running.randomElement(using: &random) {
                    running.remove(id)
                    let failure: Race.AttemptFailure =
                        [.busy, .refused, .unreachable].randomElement(using: &random) ?? .busy
                    take(race.failed(id, failure, now: at(now), hedgeDelay: hedge), because: "failed")
                }
            case 4 where Int.random(in: 0..<10, using: &random) == 0:
                if let id = running.randomElement(using: &random) { take(race.answered(id), because: "answered") }
            default:
                if let next = race.nextDeadline, next <= at(now) {
                    take(race.timePassed(now: at(now), hedgeDelay: hedge), because: "time")
                }
            }
            #expect(race.isOver || !running.isEmpty || race.nextDeadline != nil, "a race that waits for nothing")
        }
        if !race.isOver { take(race.cancel(), because: "cancel"); ends += 1 }
        #expect(ends == 1)
        #expect(running.isEmpty)
        #expect(starts <= attempts * 4)
    }
}
