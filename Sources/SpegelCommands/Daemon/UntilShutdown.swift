import ServiceLifecycle

/// A part that works from its start on and is only stopped with the service group.
struct UntilShutdown: Service {
    private let stop: @Sendable () async -> Void

    /// Calls `stop` when the group shuts down.
    init(_ stop: @escaping @Sendable () async -> Void) {
        self.stop = stop
    }

    func run() async throws {
        try? await gracefulShutdown()
        await stop()
    }
}
