import ContentStore
import ContentStoreConformance
import OCIDistribution
import ServiceLifecycle
import TestSupport
import Testing

/// A store on disk as a service: opening starts it, it ends once, and it does not start again.
@Suite(.timeLimit(.minutes(10))) struct StoreLifecycleTests {
    private var sample = SampleContent(seed: 610)

    @Test mutating func runLastsUntilTheGroupShutsDown() async throws {
        let layout = try Layout()
        let blob = sample.layer()
        try layout.put(blob)
        let store = try await layout.open()
        let events = store.events()
        let group = ServiceGroup(services: [store], logger: .init(label: "test"))
        let running = Task { try await group.run() }
        // It tracks changes meanwhile.
        let more = sample.layer()
        try layout.put(more)
        try await eventually("the new blob") { try await store.info(more.digest) != nil }
        await group.triggerGracefulShutdown()
        try await running.value
        // Subscriptions end, writing fails, reading works.
        for await _ in events {}
        await #expect(throws: ContentStoreError.closed) { try await store.beginWrite(blob.digest, size: nil) }
        #expect(try await store.open(blob.digest) != nil)
    }

    @Test func aStoreEndsOnceAndDoesNotStartAgain() async throws {
        let layout = try Layout()
        let store = try await layout.open()
        let running = Task { try await store.run() }
        await store.shutdown()
        await store.shutdown()
        // Whether run() began before or after the shutdown, it ends.
        _ = await running.result
        await #expect(throws: LifecycleError.stopped("store \(layout.path)")) { try await store.run() }
        // A new one of the same layout works.
        let next = try await layout.open()
        let cancelled = Task { try await next.run() }
        cancelled.cancel()
        try await cancelled.value
        await #expect(throws: ContentStoreError.closed) {
            try await next.untag(Reference(registry: "r.test", repository: "x", tag: "1"))
        }
    }
}
