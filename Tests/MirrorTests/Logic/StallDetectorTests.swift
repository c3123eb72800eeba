import NIOCore
import Testing

@testable import MirrorServer

@Suite struct LagMeterTests {
    private func milliseconds(_ amount: TimeAmount) -> Int64 { amount.nanoseconds / 1_000_000 }

    @Test func nothingIsLostWhilePulsesReturnInTime() {
        var meter = LagMeter()
        meter.start(first: at(0))
        var next = meter.pulseReturned(now: at(0))
        for _ in 0..<100 { next = meter.pulseReturned(now: next) }
        #expect(meter.lost(now: next) == .zero)
        #expect(next == at(505))
    }

    @Test func aPulseThatIsLateIsTimeLostWhileItIsUnderWayAndAfterwards() {
        var meter = LagMeter()
        meter.start(first: at(0))
        #expect(meter.pulseReturned(now: at(0)) == at(5))
        #expect(meter.lost(now: at(5)) == .zero)
        #expect(milliseconds(meter.lost(now: at(400))) == 395)
        #expect(meter.pulseReturned(now: at(805)) == at(810))
        #expect(milliseconds(meter.lost(now: at(807))) == 800)
        #expect(milliseconds(meter.lost(now: at(830))) == 820)
    }

    @Test func afterAStopNothingMoreIsLost() {
        var meter = LagMeter()
        meter.start(first: at(0))
        _ = meter.pulseReturned(now: at(30))
        meter.stop()
        #expect(!meter.isRunning)
        #expect(milliseconds(meter.lost(now: at(9000))) == 30)
        meter.start(first: at(9000))
        #expect(milliseconds(meter.lost(now: at(9001))) == 31)
    }

    @Test func aRequestsTimeStandsStillUpToItsAllowance() {
        let allowance = LagAllowance(before: .milliseconds(100), limit: .milliseconds(50))
        #expect(allowance.time(now: at(200), lost: .milliseconds(100)) == at(200))
        #expect(allowance.time(now: at(230), lost: .milliseconds(130)) == at(200))
        #expect(allowance.time(now: at(250), lost: .milliseconds(150)) == at(200))
        #expect(allowance.time(now: at(300), lost: .milliseconds(200)) == at(250))
    }

    @Test func progressRenewsTheAllowanceWithoutAJump() {
        var allowance = LagAllowance(before: .zero, limit: .milliseconds(50))
        #expect(allowance.time(now: at(100), lost: .milliseconds(80)) == at(50))
        allowance.renew(lost: .milliseconds(80))
        #expect(allowance.time(now: at(100), lost: .milliseconds(80)) == at(50))
        #expect(allowance.time(now: at(130), lost: .milliseconds(110)) == at(50))
        #expect(allowance.time(now: at(200), lost: .milliseconds(180)) == at(100))
    }

    /// A lookup whose result waits behind 300 ms of other work is not given up, and one that the network does not
    /// answer is, after the time it was given.
    @Test func aLookupIsNotGivenUpForTimeInWhichNothingCouldBeHeard() {
        var meter = LagMeter()
        meter.start(first: at(0))
        _ = meter.pulseReturned(now: at(0))
        let allowance = LagAllowance(before: .zero, limit: .seconds(10))
        func time(_ now: NIODeadline) -> NIODeadline { allowance.time(now: now, lost: meter.lost(now: now)) }
        var race = RaceMachine<String>(limits: .init(attempts: 3)) { _ in 0 }
        #expect(race.nextDeadline == nil)
        race.lookupBegan(deadline: time(at(0)) + .milliseconds(20))
        #expect(race.timePassed(now: time(at(305)), hedgeDelay: { _ in .zero }) == [])
        let next = meter.pulseReturned(now: at(310))
        #expect(race.timePassed(now: time(at(311)), hedgeDelay: { _ in .zero }) == [])
        _ = meter.pulseReturned(now: next)
        #expect(race.timePassed(now: time(at(320)), hedgeDelay: { _ in .zero }) == [])
        _ = meter.pulseReturned(now: at(320))
        _ = meter.pulseReturned(now: at(325))
        #expect(race.timePassed(now: time(at(325)), hedgeDelay: { _ in .zero }) == [.giveUp(.noPeers)])
    }
}
