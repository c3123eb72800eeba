import NIOPosix

/// The threads on which stores on disk read, hash, write and sync. Shared by all stores of the process, so that their
/// number stays bounded.
enum FileWork {
    static let threadCount = 4

    private static let pool: NIOThreadPool = {
        let pool = NIOThreadPool(numberOfThreads: threadCount)
        pool.start()
        return pool
    }()

    /// Runs blocking work and waits for it without blocking.
    static func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await pool.runIfActive(body)
    }

    /// Runs blocking work that nobody waits for.
    static func submit(_ body: @escaping @Sendable () -> Void) {
        pool.submit { _ in body() }
    }
}
