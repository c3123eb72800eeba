import NIOConcurrencyHelpers

/// The current watcher of blobs, if there is one.
final class CurrentWatcher: Sendable {
    /// One attempt to watch; the end of an earlier attempt's watcher is ignored.
    struct Attempt: Sendable, Hashable {
        fileprivate var number: Int
    }

    private struct State {
        var current: (watcher: BlobWatcher, directory: BlobDirectory)?
        var attempt = Attempt(number: 0)
        var hasEnded = false
        /// Why the last watch ended; `nil` while one is active.
        var failure: String?
    }

    private let state = NIOLockedValueBox(State())

    /// The directory that is watched; `nil` when none is.
    var directory: BlobDirectory? { state.withLockedValue { $0.current?.directory } }

    /// Ends the current watch and begins another attempt.
    func begin() -> Attempt {
        stop()
        return state.withLockedValue { state in
            state.hasEnded = false
            return state.attempt
        }
    }

    /// Sets the watcher of an attempt, unless it ended meanwhile.
    func set(_ watcher: BlobWatcher, _ directory: BlobDirectory, _ attempt: Attempt) {
        let isActive = state.withLockedValue { state in
            guard state.attempt == attempt, !state.hasEnded else { return false }
            state.current = (watcher, directory)
            state.failure = nil
            return true
        }
        if !isActive { watcher.stop() }
    }

    /// Records that an attempt failed, or that its watcher ended.
    ///
    /// - Returns: whether this is the current attempt, and whether the reason differs from the last one and is to be logged.
    func end(_ attempt: Attempt, reason: String) -> (isCurrent: Bool, shouldLog: Bool) {
        state.withLockedValue { state in
            guard state.attempt == attempt, !state.hasEnded else { return (false, false) }
            state.hasEnded = true
            state.current = nil
            defer { state.failure = reason }
            return (true, state.failure != reason)
        }
    }

    /// Ends the watch.
    func stop() {
        let old = state.withLockedValue { state in
            state.attempt.number += 1
            defer { state.current = nil }
            return state.current
        }
        old?.watcher.stop()
    }
}
