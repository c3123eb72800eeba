import ContentStore
import Logging
import ServiceLifecycle
import Testing

@testable import ContainerdContentStore

/// The store as a service, without a containerd to reach.
@Suite(.timeLimit(.minutes(10))) struct StoreLifecycleTests {
    private func store() -> ContainerdContentStore {
        var logger = Logger(label: "containerd-tests")
        logger.logLevel = .critical
        return ContainerdContentStore(configuration: .init(socketPath: "/nonexistent/socket"), logger: logger)
    }

    @Test func startsOnceAndEndsOnce() async throws {
        let store = store()
        let events = store.events()
        try await store.start()
        await #expect(throws: LifecycleError.alreadyStarted("containerd store")) { try await store.start() }
        // run() adopts a store that was started, and ends with it.
        let running = Task { try await store.run() }
        await store.shutdown()
        _ = await running.result
        for await _ in events {}
        await store.shutdown()
        await #expect(throws: LifecycleError.stopped("containerd store")) { try await store.start() }
        await #expect(throws: LifecycleError.stopped("containerd store")) { try await store.run() }
        #expect(store.health.connection == .disconnected(reason: "the store was shut down"))
    }

    @Test func runStartsAndEndsWithItsGroup() async throws {
        let store = store()
        let group = ServiceGroup(services: [store], logger: Logger(label: "test"))
        let running = Task { try await group.run() }
        // It tries to connect.
        while case .connecting = store.health.connection { try await Task.sleep(for: .milliseconds(5)) }
        await group.triggerGracefulShutdown()
        try await running.value
        await #expect(throws: LifecycleError.stopped("containerd store")) { try await store.start() }
    }

    @Test func aStoreThatNeverStartedEndsItsSubscriptions() async throws {
        let store = store()
        let events = store.events()
        await store.shutdown()
        for await _ in events {}
        await #expect(throws: LifecycleError.stopped("containerd store")) { try await store.start() }
    }
}
