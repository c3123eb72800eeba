import DequeModule
import NIOConcurrencyHelpers
import NIOPosix

/// The threads on which stores on disk read, hash, write and sync; four, shared by all stores of the process.
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

    /// Runs blocking work without waiting for it.
    static func submit(_ body: @escaping @Sendable () -> Void) {
        pool.submit { _ in body() }
    }
}

/// A mutex for asynchronous work: one task at a time, in the order in which they asked.
///
/// The changes of one `index.json` by this process take it before they try the lock file, which is polled: without it the
/// tasks of one process would keep the lock file from each other by chance, and from one of them for long.
final class AsyncMutex: Sendable {
    /// Most tasks that wait.
    static let limit = 4096

    private struct State {
        var isHeld = false
        var waiting: Deque<CheckedContinuation<Void, Never>> = []
    }

    private let state = NIOLockedValueBox(State())

    /// Runs `body` while no other does.
    ///
    /// - Throws: ``ContentStoreError/unavailable(_:)`` when too many tasks wait, `CancellationError` when the task was
    ///   cancelled before it got the mutex, else what `body` throws.
    func withLock(_ body: () async throws -> Void) async throws {
        try await lock()
        defer { unlock() }
        try Task.checkCancellation()
        try await body()
    }

    private func lock() async throws {
        var isRefused = false
        await withCheckedContinuation { continuation in
            let continues = state.withLockedValue { state -> Bool in
                if state.isHeld, state.waiting.count < Self.limit {
                    state.waiting.append(continuation)
                    return false
                }
                isRefused = state.isHeld
                state.isHeld = true
                return true
            }
            if continues { continuation.resume() }
        }
        if isRefused { throw ContentStoreError.unavailable("more than \(Self.limit) changes of names wait") }
    }

    private func unlock() {
        let next = state.withLockedValue { state -> CheckedContinuation<Void, Never>? in
            let next = state.waiting.popFirst()
            state.isHeld = next != nil
            return next
        }
        next?.resume()
    }
}
