import NIOConcurrencyHelpers

/// Holds the watcher of the moment, if one really watches.
final class WatcherBox: Sendable {
    /// One attempt to watch; what an earlier attempt's watcher says of its end is of no interest any more.
    struct Attempt: Sendable, Hashable {
        fileprivate var number: Int
    }

    private struct State {
        var current: (watcher: BlobWatcher, directory: BlobDirectory)?
        var attempt = Attempt(number: 0)
        var hasEnded = false
        /// Why watching failed the last time; `nil` while it works.
        var failure: String?
    }

    private let state = NIOLockedValueBox(State())

    /// The directory that is watched; `nil` when none is.
    var directory: BlobDirectory? { state.withLockedValue { $0.current?.directory } }

    /// Ends the watching there is, and says that another attempt follows.
    func begin() -> Attempt {
        stop()
        return state.withLockedValue { state in
            state.hasEnded = false
            return state.attempt
        }
    }

    /// Takes over the watcher of an attempt, unless it ended meanwhile.
    func set(_ watcher: BlobWatcher, _ directory: BlobDirectory, _ attempt: Attempt) {
        let isOfUse = state.withLockedValue { state in
            guard state.attempt == attempt, !state.hasEnded else { return false }
            state.current = (watcher, directory)
            state.failure = nil
            return true
        }
        if !isOfUse { watcher.stop() }
    }

    /// Takes note that an attempt failed, or that its watcher ended.
    ///
    /// - Returns: whether that is of interest, and whether it is worth saying: the same was not said just before.
    func end(_ attempt: Attempt, reason: String) -> (isCurrent: Bool, isNews: Bool) {
        state.withLockedValue { state in
            guard state.attempt == attempt, !state.hasEnded else { return (false, false) }
            state.hasEnded = true
            state.current = nil
            defer { state.failure = reason }
            return (true, state.failure != reason)
        }
    }

    /// Ends the watching.
    func stop() {
        let old = state.withLockedValue { state in
            state.attempt.number += 1
            defer { state.current = nil }
            return state.current
        }
        old?.watcher.stop()
    }
}
