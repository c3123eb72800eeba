import NIOConcurrencyHelpers
import ServiceLifecycle

/// The contract that all long-lived parts keep: a part starts once and ends once.
///
/// `start()` returns when the part is ready to work. `run()` starts it unless it was started, waits until its service
/// group shuts down gracefully, its task is cancelled or the part is shut down, and then shuts it down. `shutdown()`
/// returns when nothing of the part is left, and may be called at any time and any number of times. A part that was shut
/// down does not start again: ``LifecycleError``.
package final class Lifecycle: Sendable {
    private enum Phase {
        case new, starting, running
        case ending(Task<Void, Never>)
        case ended
    }

    private struct State {
        var phase = Phase.new
        /// Woken by the next change of the phase; as many as there are callers.
        var waiters: [Int: CheckedContinuation<Void, Never>] = [:]
        var nextWaiter = 0
    }

    private let name: String
    private let state = NIOLockedValueBox(State())

    /// - Parameter name: what the part is called in errors.
    package init(name: String) { self.name = name }

    /// Whether the part has started and is not being shut down.
    package var isRunning: Bool { state.withLockedValue { if case .running = $0.phase { true } else { false } } }

    /// Starts the part with `action`; if that throws, the part has ended.
    ///
    /// - Throws: ``LifecycleError``, or what `action` throws.
    package func start<Result: Sendable>(_ action: () async throws -> Result) async throws -> Result {
        try state.withLockedValue { state in
            switch state.phase {
            case .new: state.phase = .starting
            case .starting, .running: throw LifecycleError.alreadyStarted(name)
            case .ending, .ended: throw LifecycleError.stopped(name)
            }
        }
        do {
            let result = try await action()
            change(to: .running)
            return result
        } catch {
            change(to: .ended)
            throw error
        }
    }

    /// Ends the part with `action`, which runs once however often this is called, after a start that is under way, and
    /// not at all if the part was never started. Returns when it is done.
    package func end(_ action: @escaping @Sendable () async -> Void) async {
        while true {
            let isStarting: Bool
            let task: Task<Void, Never>?
            (isStarting, task) = state.withLockedValue { state -> (Bool, Task<Void, Never>?) in
                switch state.phase {
                case .new, .starting, .ended: break
                case .running:
                    let task = Task {
                        await action()
                        self.change(to: .ended)
                    }
                    state.phase = .ending(task)
                    return (false, task)
                case .ending(let task): return (false, task)
                }
                if case .starting = state.phase { return (true, nil) }
                state.phase = .ended
                return (false, nil)
            }
            if isStarting {
                await nextChange { if case .starting = $0 { true } else { false } }
                continue
            }
            if let task { await task.value } else { change(to: .ended) }
            return
        }
    }

    /// Carries out `run()` of the part.
    ///
    /// - Parameter shutdown: ends the part, without a grace period if the task was cancelled.
    /// - Throws: what `start` throws; ``LifecycleError/stopped(_:)``.
    package func run(
        start: () async throws -> Void, shutdown: (_ isCancelled: Bool) async -> Void
    ) async throws {
        do {
            try await start()
        } catch LifecycleError.alreadyStarted {
            // By ``start(_:)`` before; it works already.
        } catch  where Task.isCancelled && !(error is LifecycleError) {
            // The start was interrupted and has undone itself.
            return
        }
        await cancelWhenGracefulShutdown { await self.waitUntilEnding() }
        await shutdown(Task.isCancelled)
    }

    /// Returns once a shutdown has begun, or the task is cancelled.
    private func waitUntilEnding() async {
        while !Task.isCancelled {
            let isOver = state.withLockedValue {
                switch $0.phase {
                case .ending, .ended: true
                case .new, .starting, .running: false
                }
            }
            if isOver { return }
            await nextChange {
                switch $0 {
                case .ending, .ended: false
                case .new, .starting, .running: true
                }
            }
        }
    }

    private func change(to phase: Phase) {
        let waiters = state.withLockedValue { state in
            state.phase = phase
            defer { state.waiters = [:] }
            return Array(state.waiters.values)
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Waits for the phase to change, while `isUnchanged` holds of it and the task is not cancelled.
    private func nextChange(while isUnchanged: @escaping @Sendable (Phase) -> Bool) async {
        let id = state.withLockedValue { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let resumesNow = state.withLockedValue { state in
                    guard isUnchanged(state.phase), !Task.isCancelled else { return true }
                    state.waiters[id] = continuation
                    return false
                }
                if resumesNow { continuation.resume() }
            }
        } onCancel: {
            state.withLockedValue { $0.waiters.removeValue(forKey: id) }?.resume()
        }
    }
}

/// A long-lived part was asked to start although it was started or shut down before.
public enum LifecycleError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The part with this name was started before.
    case alreadyStarted(String)
    /// The part with this name was shut down, and does not start again.
    case stopped(String)

    /// What happened.
    public var description: String {
        switch self {
        case .alreadyStarted(let name): "the \(name) was started before"
        case .stopped(let name): "the \(name) was shut down and does not start again; make a new one"
        }
    }
}
