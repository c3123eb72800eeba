import NIOCore
import Testing

@testable import MirrorServer

@Suite struct LatencyEstimatorTests {
    @Test func withoutHistoryTheDelayIsFixed() {
        var estimator = LatencyEstimator()
        #expect(estimator.hedgeDelay(concurrent: 1, now: at(0)) == .milliseconds(50))
        for _ in 0..<7 { estimator.record(.milliseconds(2), now: at(0)) }
        #expect(estimator.hedgeDelay(concurrent: 1, now: at(2000)) == .milliseconds(50))
        #expect(estimator.quantile(0.5, now: at(0)) == nil)
    }

    @Test func delaysAreTheQuantilesOfWhatWasSeen() {
        var estimator = LatencyEstimator()
        for milliseconds in Int64(1)...100 { estimator.record(.milliseconds(milliseconds), now: at(0)) }
        #expect(estimator.hedgeDelay(concurrent: 1, now: at(0)) == .milliseconds(80))
        #expect(estimator.hedgeDelay(concurrent: 2, now: at(0)) == .milliseconds(85))
        #expect(estimator.hedgeDelay(concurrent: 3, now: at(0)) == .milliseconds(90))
        #expect(estimator.hedgeDelay(concurrent: 9, now: at(0)) == .milliseconds(90))
        #expect(estimator.hedgeDelay(concurrent: 0, now: at(0)) == .milliseconds(80))
    }

    @Test func noHistoryLocksRequestsOut() {
        var estimator = LatencyEstimator()
        for _ in 0..<1000 { estimator.record(.hours(10), now: at(0)) }
        #expect(estimator.hedgeDelay(concurrent: 3, now: at(0)) == LatencyEstimator.longestDelay)
        // A cluster that has become fast again is seen to be fast.
        for _ in 0..<LatencyEstimator.capacity { estimator.record(.microseconds(100), now: at(10)) }
        #expect(estimator.hedgeDelay(concurrent: 1, now: at(10)) == LatencyEstimator.shortestDelay)
    }

    @Test func oldSamplesAreForgotten() {
        var estimator = LatencyEstimator()
        for _ in 0..<100 { estimator.record(.milliseconds(400), now: at(0)) }
        #expect(estimator.hedgeDelay(concurrent: 1, now: at(0)) == .milliseconds(400))
        #expect(estimator.hedgeDelay(concurrent: 1, now: at(301_000)) == .milliseconds(50))
    }

    @Test func strangeSamplesAreHarmless() {
        var estimator = LatencyEstimator()
        for value in [Int64.min, -1, 0, 1, .max] {
            for _ in 0..<20 { estimator.record(.nanoseconds(value), now: at(0)) }
        }
        let delay = estimator.hedgeDelay(concurrent: 1, now: at(0))
        #expect(delay >= LatencyEstimator.shortestDelay && delay <= LatencyEstimator.longestDelay)
    }
}
