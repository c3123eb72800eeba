import NIOCore
import PeerRouting
import Testing

@testable import MirrorServer

@Suite struct HappyEyeballsTests {
    private let a = IPAddress.v4(1)
    private let b = IPAddress.v4(2)
    private let c = IPAddress.v4(3)
    private let x = IPAddress.v6(high: 1, low: 1)
    private let y = IPAddress.v6(high: 1, low: 2)

    @Test func familiesTakeTurns() {
        #expect(HappyEyeballs([a, b, x, y, c]).addresses == [a, x, b, y, c])
        #expect(HappyEyeballs([x, a, b]).addresses == [x, a, b])
        #expect(HappyEyeballs((0..<50).map { .v4($0) }).addresses.count == HappyEyeballs.addressLimit)
    }

    @Test func theNextAddressIsTriedAfterAMomentOrAFailure() {
        var eyes = HappyEyeballs([a, b, c])
        #expect(eyes.start(now: at(0)) == [.dial(0)])
        #expect(eyes.nextDeadline == at(100))
        #expect(eyes.timePassed(now: at(99)) == [])
        #expect(eyes.timePassed(now: at(100)) == [.dial(1)])
        #expect(eyes.failed(1, now: at(120)) == [.dial(2)])
        #expect(eyes.nextDeadline == nil)
        #expect(eyes.connected(2) == [.use(2), .abandon(0)])
        #expect(eyes.connected(0) == [.abandon(0)])
    }

    @Test func failureIsToldWhenAllHaveFailed() {
        var eyes = HappyEyeballs([a, b])
        _ = eyes.start(now: at(0))
        _ = eyes.timePassed(now: at(100))
        #expect(eyes.failed(0, now: at(150)) == [])
        #expect(eyes.failed(1, now: at(160)) == [.fail])
        var empty = HappyEyeballs([])
        #expect(empty.start(now: at(0)) == [.fail])
    }

    @Test func cancellingDropsWhatIsUnderWay() {
        var eyes = HappyEyeballs([a, b])
        _ = eyes.start(now: at(0))
        _ = eyes.timePassed(now: at(100))
        #expect(eyes.cancel() == [.abandon(0), .abandon(1)])
        #expect(eyes.connected(0) == [.abandon(0)])
        #expect(eyes.nextDeadline == nil)
    }
}
