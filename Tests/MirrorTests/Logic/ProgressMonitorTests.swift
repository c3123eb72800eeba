import NIOCore
import Testing

@testable import MirrorServer

@Suite struct ProgressMonitorTests {
    private func monitor() -> ProgressMonitor {
        ProgressMonitor(window: .milliseconds(1000), minimum: 100, now: at(0))
    }

    @Test func silenceIsAStall() {
        var monitor = monitor()
        #expect(monitor.deadline == at(1000))
        #expect(monitor.hasStalled(now: at(999)) == false)
        #expect(monitor.hasStalled(now: at(1000)) == true)
    }

    @Test func aTrickleIsAStall() {
        var monitor = monitor()
        for _ in 0..<99 { monitor.received(1) }
        #expect(monitor.hasStalled(now: at(1000)) == true)
    }

    @Test func enoughBytesBeginANewWindow() {
        var monitor = monitor()
        monitor.received(100)
        #expect(monitor.hasStalled(now: at(1000)) == false)
        #expect(monitor.deadline == at(2000))
        #expect(monitor.hasStalled(now: at(2000)) == true)
    }

    @Test func timeDoesNotCountWhileNothingIsWanted() {
        var monitor = monitor()
        monitor.pause()
        #expect(monitor.deadline == nil)
        #expect(monitor.hasStalled(now: at(5000)) == false)
        monitor.resume(now: at(5000))
        #expect(monitor.deadline == at(6000))
        #expect(monitor.hasStalled(now: at(5999)) == false)
        #expect(monitor.hasStalled(now: at(6000)) == true)
    }
}
