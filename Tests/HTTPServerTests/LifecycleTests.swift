import NIOConcurrencyHelpers
import ServiceLifecycle
import Testing

@testable import HTTPServer

/// The contract that long-lived parts share.
@Suite(.timeLimit(.minutes(10))) struct LifecycleTests {
    private struct Failure: Error {}

    @Test func startsOnceAndEndsOnce() async throws {
        let lifecycle = Lifecycle(name: "part")
        let ends = NIOLockedValueBox(0)
        #expect(!lifecycle.isRunning)
        #expect(try await lifecycle.start { 7 } == 7)
        #expect(lifecycle.isRunning)
        await #expect(throws: LifecycleError.alreadyStarted("part")) { try await lifecycle.start {} }
        for _ in 0..<3 { await lifecycle.end { ends.withLockedValue { $0 += 1 } } }
        #expect(ends.withLockedValue { $0 } == 1)
        #expect(!lifecycle.isRunning)
        await #expect(throws: LifecycleError.stopped("part")) { try await lifecycle.start {} }
    }

    @Test func aPartThatWasNeverStartedHasNothingToEnd() async throws {
        let lifecycle = Lifecycle(name: "part")
        await lifecycle.end { Issue.record("there is nothing to end") }
        await #expect(throws: LifecycleError.stopped("part")) { try await lifecycle.start {} }
    }

    @Test func aFailedStartIsTheEnd() async throws {
        let lifecycle = Lifecycle(name: "part")
        await #expect(throws: Failure.self) { try await lifecycle.start { throw Failure() } }
        await lifecycle.end { Issue.record("there is nothing to end") }
        await #expect(throws: LifecycleError.stopped("part")) { try await lifecycle.start {} }
    }

    /// An end that is asked for during the start follows it, and every caller waits for it.
    @Test func anEndWaitsForTheStart() async throws {
        let lifecycle = Lifecycle(name: "part")
        let order = NIOLockedValueBox<[String]>([])
        let (gate, opener) = AsyncStream<Void>.makeStream()
        let (begun, begin) = AsyncStream<Void>.makeStream()
        let start = Task {
            try await lifecycle.start {
                begin.finish()
                for await _ in gate {}
                order.withLockedValue { $0.append("started") }
            }
        }
        for await _ in begun {}
        let ends = (0..<4).map { _ in
            Task {
                await lifecycle.end { order.withLockedValue { $0.append("ended") } }
                #expect(order.withLockedValue { $0 } == ["started", "ended"])
            }
        }
        opener.finish()
        try await start.value
        for end in ends { await end.value }
        #expect(order.withLockedValue { $0 } == ["started", "ended"])
    }

    @Test func runTakesOverWhatWasStarted() async throws {
        let lifecycle = Lifecycle(name: "part")
        try await lifecycle.start {}
        let shutdowns = NIOLockedValueBox<[Bool]>([])
        let running = Task {
            try await lifecycle.run {
                try await lifecycle.start {}
            } shutdown: { isCancelled in
                shutdowns.withLockedValue { $0.append(isCancelled) }
                await lifecycle.end {}
            }
        }
        running.cancel()
        try await running.value
        #expect(shutdowns.withLockedValue { $0 } == [true])
        await #expect(throws: LifecycleError.stopped("part")) {
            try await lifecycle.run {
                try await lifecycle.start {}
            } shutdown: { _ in
            }
        }
    }
}
