import DequeModule
import NIOConcurrencyHelpers
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

/// Lets the changes of one `index.json` that this process makes take turns, in the order they were asked for.
///
/// Between processes a lock on a file decides, which is tried again and again: without turns the many changes of one
/// process would keep the lock from one another by chance, and from one of them for long.
final class EditTurns: Sendable {
    /// Most changes that wait for their turn.
    static let limit = 4096

    private struct State {
        var isTaken = false
        var waiting: Deque<CheckedContinuation<Void, Never>> = []
    }

    private let state = NIOLockedValueBox(State())

    /// Runs `body` when it is its turn.
    ///
    /// - Throws: ``ContentStoreError/unavailable(_:)`` when too many wait, `CancellationError` when the task was cancelled
    ///   before its turn, else what `body` throws.
    func perform(_ body: () async throws -> Void) async throws {
        try await begin()
        defer { end() }
        try Task.checkCancellation()
        try await body()
    }

    private func begin() async throws {
        var isRefused = false
        await withCheckedContinuation { continuation in
            let goesOn = state.withLockedValue { state -> Bool in
                if state.isTaken, state.waiting.count < Self.limit {
                    state.waiting.append(continuation)
                    return false
                }
                isRefused = state.isTaken
                state.isTaken = true
                return true
            }
            if goesOn { continuation.resume() }
        }
        if isRefused { throw ContentStoreError.unavailable("more than \(Self.limit) changes of names wait") }
    }

    private func end() {
        let next = state.withLockedValue { state -> CheckedContinuation<Void, Never>? in
            let next = state.waiting.popFirst()
            state.isTaken = next != nil
            return next
        }
        next?.resume()
    }
}
