import ServiceLifecycle

/// Runs a closure when the service group shuts down.
struct ShutdownHook: Service {
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
