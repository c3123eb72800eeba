import NIOCore
import Testing

@testable import MirrorServer

@Suite struct StallDetectorTests {
    private func milliseconds(_ amount: TimeAmount) -> Int64 { amount.nanoseconds / 1_000_000 }

    @Test func nothingIsLostWhilePulsesReturnInTime() {
        var detector = StallDetector()
        detector.start(first: at(0))
        var next = detector.probeReturned(now: at(0))
        for _ in 0..<100 { next = detector.probeReturned(now: next) }
        #expect(detector.stalled(now: next) == .zero)
        #expect(next == at(505))
    }

    @Test func aPulseThatIsLateIsTimeLostWhileItIsUnderWayAndAfterwards() {
        var detector = StallDetector()
        detector.start(first: at(0))
        #expect(detector.probeReturned(now: at(0)) == at(5))
        #expect(detector.stalled(now: at(5)) == .zero)
        #expect(milliseconds(detector.stalled(now: at(400))) == 395)
        #expect(detector.probeReturned(now: at(805)) == at(810))
        #expect(milliseconds(detector.stalled(now: at(807))) == 800)
        #expect(milliseconds(detector.stalled(now: at(830))) == 820)
    }

    @Test func afterAStopNothingMoreIsLost() {
        var detector = StallDetector()
        detector.start(first: at(0))
        _ = detector.probeReturned(now: at(30))
        detector.stop()
        #expect(!detector.isRunning)
        #expect(milliseconds(detector.stalled(now: at(9000))) == 30)
        detector.start(first: at(9000))
        #expect(milliseconds(detector.stalled(now: at(9001))) == 31)
    }

    @Test func aRequestsTimeStandsStillUpToItsAllowance() {
        let allowance = StallAllowance(before: .milliseconds(100), limit: .milliseconds(50))
        #expect(allowance.time(now: at(200), stalled: .milliseconds(100)) == at(200))
        #expect(allowance.time(now: at(230), stalled: .milliseconds(130)) == at(200))
        #expect(allowance.time(now: at(250), stalled: .milliseconds(150)) == at(200))
        #expect(allowance.time(now: at(300), stalled: .milliseconds(200)) == at(250))
    }

    /// A lookup whose result waits behind 300 ms of other work is not given up, and one that the network does not
    /// answer is, after the time it was given.
    @Test func aLookupIsNotGivenUpForTimeInWhichNothingCouldBeHeard() {
        var detector = StallDetector()
        detector.start(first: at(0))
        _ = detector.probeReturned(now: at(0))
        let allowance = StallAllowance(before: .zero, limit: .seconds(1))
        func time(_ now: NIODeadline) -> NIODeadline { allowance.time(now: now, stalled: detector.stalled(now: now)) }
        var race = RaceMachine<String>(limits: .init(attempts: 3)) { _ in 0 }
        #expect(race.nextDeadline == nil)
        race.lookupStarted(deadline: time(at(0)) + .milliseconds(20))
        #expect(race.timePassed(now: time(at(305)), hedgeDelay: { _ in .zero }) == [])
        let next = detector.probeReturned(now: at(310))
        #expect(race.timePassed(now: time(at(311)), hedgeDelay: { _ in .zero }) == [])
        _ = detector.probeReturned(now: next)
        #expect(race.timePassed(now: time(at(320)), hedgeDelay: { _ in .zero }) == [])
        _ = detector.probeReturned(now: at(320))
        _ = detector.probeReturned(now: at(325))
        #expect(race.timePassed(now: time(at(325)), hedgeDelay: { _ in .zero }) == [.fail(.noPeers)])
    }
}
