import NIOCore
import NIOPosix
import PeerRoutingCore
import TestSupport
import Testing

@testable import MirrorServer

@Suite(.timeLimit(.minutes(5))) struct DeadlineTimerTests {
    /// Timers of one event loop, with what became of them. Confined to it.
    private final class Subject {
        let timers: EventLoopTimers
        let clock: StallAdjustedClock
        var all: [DeadlineTimer] = []
        /// By timer: the deadline that counts, nil when it was cancelled.
        var deadlines: [NIODeadline?] = []
        var fired: [[NIODeadline]] = []

        init(_ eventLoop: any EventLoop) {
            timers = EventLoopTimers(eventLoop: eventLoop)
            clock = StallAdjustedClock(StallMonitor(), timers: timers, allowance: .zero)
        }

        func add(_ action: @escaping (Subject) -> Void = { _ in }) {
            let index = all.count
            fired.append([])
            deadlines.append(nil)
            all.append(
                DeadlineTimer(clock: clock) { [unowned self] in
                    fired[index].append(.now())
                    action(self)
                })
        }

        func set(_ index: Int, _ deadline: NIODeadline?) {
            deadlines[index] = deadline
            all[index].set(deadline)
        }

        var isOver: Bool { timers.count == 0 }
    }

    private let eventLoop = MultiThreadedEventLoopGroup.singleton.next()

    private func onLoop<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await eventLoop.submit(body).get()
    }

    /// Sets, moves and cancels at random: what is left fires once, and not before its deadline.
    @Test(arguments: 1...8 as ClosedRange<UInt64>) func aTimerFiresOnceAndNotEarly(seed: UInt64) async throws {
        let subject = try await onLoop { [eventLoop] in
            let subject = Subject(eventLoop)
            for _ in 0..<100 { subject.add() }
            var random = SplitMix64(seed: seed)
            let begin = NIODeadline.now()
            for _ in 0..<1000 {
                let index = Int.random(in: 0..<100, using: &random)
                let isCancelled = Int.random(in: 0..<3, using: &random) == 0
                let time = TimeAmount.milliseconds(.random(in: 5...60, using: &random))
                subject.set(index, isCancelled ? nil : begin + time)
            }
            return NIOLoopBound(subject, eventLoop: eventLoop)
        }
        try await eventually { try await onLoop { subject.value.isOver } }
        try await onLoop {
            let subject = subject.value
            for (deadline, fired) in zip(subject.deadlines, subject.fired) {
                #expect(fired.count == (deadline == nil ? 0 : 1))
                if let deadline, let time = fired.first { #expect(time >= deadline) }
            }
        }
    }

    /// Two are due together, and the first cancels the second, whose place in the table a third takes.
    @Test func aTimerThatIsDueCanBeCancelled() async throws {
        let subject = try await onLoop { [eventLoop] in
            let subject = Subject(eventLoop)
            let soon = NIODeadline.now() + .milliseconds(5)
            subject.add { subject in
                subject.set(1, nil)
                subject.set(2, soon)
            }
            subject.add()
            subject.add()
            subject.set(0, soon)
            subject.set(1, soon)
            // Both are due when the table is gone through.
            while NIODeadline.now() < soon + .milliseconds(1) {}
            return NIOLoopBound(subject, eventLoop: eventLoop)
        }
        try await eventually { try await onLoop { subject.value.isOver } }
        try await onLoop { #expect(subject.value.fired.map(\.count) == [1, 0, 1]) }
    }
}
