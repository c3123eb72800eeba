import NIOCore
import PeerRoutingCore
import Testing

@Suite struct HappyEyeballsTests {
    private let a = IPAddress.v4(1)
    private let b = IPAddress.v4(2)
    private let c = IPAddress.v4(3)
    private let x = IPAddress.v6(high: 1, low: 1)
    private let y = IPAddress.v6(high: 1, low: 2)

    private func race(of count: Int) -> HappyEyeballs {
        HappyEyeballs(count: count, attemptDelay: .milliseconds(100))
    }

    private func at(_ milliseconds: Int64) -> NIODeadline {
        .uptimeNanoseconds(1_000_000_000_000) + .milliseconds(milliseconds)
    }

    @Test func familiesAlternate() {
        #expect(HappyEyeballs.interleaved([a, b, x, y, c], limit: 8) == [a, x, b, y, c])
        #expect(HappyEyeballs.interleaved([x, a, b], limit: 8) == [x, a, b])
        #expect(HappyEyeballs.interleaved([a, b, x, y, c], limit: 3) == [a, x, b])
        #expect(HappyEyeballs.interleaved([], limit: 8) == [])
    }

    @Test func theNextAddressIsDialledAfterTheDelayOrAFailure() {
        var eyes = race(of: 3)
        #expect(eyes.start(now: at(0)) == [.dial(0)])
        #expect(eyes.nextDeadline == at(100))
        #expect(eyes.timePassed(now: at(99)) == [])
        #expect(eyes.timePassed(now: at(100)) == [.dial(1)])
        #expect(eyes.failed(1, now: at(120)) == [.dial(2)])
        #expect(eyes.nextDeadline == nil)
        #expect(eyes.connected(2) == [.use(2), .abandon(0)])
        #expect(eyes.connected(0) == [.abandon(0)])
    }

    @Test func theRaceFailsWhenAllHaveFailed() {
        var eyes = race(of: 2)
        _ = eyes.start(now: at(0))
        _ = eyes.timePassed(now: at(100))
        #expect(eyes.failed(0, now: at(150)) == [])
        #expect(eyes.failed(1, now: at(160)) == [.fail])
        var empty = race(of: 0)
        #expect(empty.start(now: at(0)) == [.fail])
    }

    @Test func cancellingAbandonsTheAttempts() {
        var eyes = race(of: 2)
        _ = eyes.start(now: at(0))
        _ = eyes.timePassed(now: at(100))
        #expect(eyes.cancel() == [.abandon(0), .abandon(1)])
        #expect(eyes.connected(0) == [.abandon(0)])
        #expect(eyes.nextDeadline == nil)
    }
}
