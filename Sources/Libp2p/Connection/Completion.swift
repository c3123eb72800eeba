import NIOConcurrencyHelpers
import Synchronization

/// A result that one side sets once, from any thread, and any number of tasks wait for.
final class Completion<Value: Sendable>: Sendable {
    private enum State {
        case pending(waiters: [UInt64: CheckedContinuation<Value, any Error>], nextID: UInt64)
        case done(Result<Value, any Error>)
    }

    private let state = NIOLockedValueBox(State.pending(waiters: [:], nextID: 0))

    /// Sets the result; only the first one counts.
    func complete(_ result: Result<Value, any Error>) {
        let waiters = state.withLockedValue { state -> [CheckedContinuation<Value, any Error>] in
            guard case .pending(let waiters, _) = state else { return [] }
            state = .done(result)
            return Array(waiters.values)
        }
        for waiter in waiters { waiter.resume(with: result) }
    }

    func succeed(_ value: Value) { complete(.success(value)) }
    func fail(_ error: any Error) { complete(.failure(error)) }

    var isDone: Bool {
        state.withLockedValue { state in
            if case .done = state { true } else { false }
        }
    }

    /// Waits for the result, or for the task's cancellation, which leaves the work itself alone.
    func wait() async throws -> Value {
        let id = state.withLockedValue { state -> UInt64 in
            guard case .pending(let waiters, let nextID) = state else { return 0 }
            state = .pending(waiters: waiters, nextID: nextID + 1)
            return nextID
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let result = state.withLockedValue { state -> Result<Value, any Error>? in
                    switch state {
                    case .done(let result):
                        return result
                    case .pending(var waiters, let nextID):
                        // A cancellation that came first has found no continuation to resume.
                        if Task.isCancelled { return .failure(CancellationError()) }
                        waiters[id] = continuation
                        state = .pending(waiters: waiters, nextID: nextID)
                        return nil
                    }
                }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            let waiter = state.withLockedValue { state -> CheckedContinuation<Value, any Error>? in
                guard case .pending(var waiters, let nextID) = state else { return nil }
                let waiter = waiters.removeValue(forKey: id)
                state = .pending(waiters: waiters, nextID: nextID)
                return waiter
            }
            waiter?.resume(throwing: CancellationError())
        }
    }
}

/// True for the first call of ``claim()`` only. May be used from any thread.
final class FirstOnly: Sendable {
    private let isTaken = Atomic<Bool>(false)

    func claim() -> Bool {
        !isTaken.exchange(true, ordering: .acquiringAndReleasing)
    }
}

/// Runs a closure on the first call of ``run()`` only.
final class RunOnce: Sendable {
    private let first = FirstOnly()
    private let body: @Sendable () -> Void

    init(_ body: @escaping @Sendable () -> Void) {
        self.body = body
    }

    func run() {
        if first.claim() { body() }
    }
}
