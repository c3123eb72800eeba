import NIOCore
import Testing

@testable import MirrorServer

@Suite struct ProgressMonitorTests {
    private func monitor() -> ProgressMonitor {
        ProgressMonitor(
            limits: .init(slowWindow: .milliseconds(500), stallWindow: .milliseconds(2000), stallBytes: 100), now: at(0)
        )
    }

    @Test func silenceIsSlowAndThenAStall() {
        var monitor = monitor()
        #expect(monitor.deadline == at(500))
        #expect(monitor.judge(now: at(499), expectedRate: 1) == .sufficient)
        for time in [500, 1000, 1500] as [Int64] { #expect(monitor.judge(now: at(time), expectedRate: 1) == .slow) }
        #expect(monitor.judge(now: at(2000), expectedRate: 1) == .stalled)
    }

    @Test func aTrickleIsAStall() {
        var monitor = monitor()
        for _ in 0..<99 { monitor.received(1) }
        #expect(monitor.judge(now: at(2000), expectedRate: 0) == .stalled)
    }

    @Test func theRateIsJudgedInEachWindow() {
        var monitor = monitor()
        monitor.received(50_000)
        #expect(monitor.judge(now: at(500), expectedRate: 100_000) == .sufficient)
        monitor.received(49_999)
        #expect(monitor.judge(now: at(1000), expectedRate: 100_000) == .slow)
        monitor.received(50_000)
        #expect(monitor.judge(now: at(1500), expectedRate: 100_000) == .sufficient)
        #expect(monitor.deadline == at(2000))
    }

    @Test func enoughBytesBeginANewWindow() {
        var monitor = monitor()
        monitor.received(100)
        #expect(monitor.judge(now: at(2000), expectedRate: 0) == .sufficient)
        #expect(monitor.judge(now: at(4000), expectedRate: 0) == .stalled)
    }

    @Test func timeDoesNotCountWhileNoBytesAreExpected() {
        var monitor = monitor()
        monitor.pause()
        #expect(monitor.deadline == nil)
        #expect(monitor.judge(now: at(5000), expectedRate: 1) == .sufficient)
        monitor.resume(now: at(5000))
        #expect(monitor.deadline == at(5500))
        #expect(monitor.judge(now: at(5499), expectedRate: 1) == .sufficient)
        #expect(monitor.judge(now: at(7000), expectedRate: 1) == .stalled)
    }

    @Test func theRecentPastSaysWhatIsSlowWithinLimits() {
        var estimator = ThroughputEstimator()
        let limits = ThroughputEstimator.expectedRates
        #expect(estimator.expectedRate(now: at(0)) == limits.lowerBound)
        for _ in 0..<8 { estimator.record(8_000_000, now: at(0)) }
        #expect(estimator.expectedRate(now: at(0)) == 1_000_000)
        for _ in 0..<64 { estimator.record(1_000_000_000, now: at(0)) }
        #expect(estimator.expectedRate(now: at(0)) == limits.upperBound)
        for _ in 0..<64 { estimator.record(1, now: at(0)) }
        #expect(estimator.expectedRate(now: at(0)) == limits.lowerBound)
        for _ in 0..<64 { estimator.record(8_000_000, now: at(0)) }
        #expect(estimator.expectedRate(now: at(59_999)) == 1_000_000)
        #expect(estimator.expectedRate(now: at(60_000)) == limits.lowerBound)
    }
}
