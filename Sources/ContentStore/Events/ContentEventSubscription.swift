import DequeModule
import NIOConcurrencyHelpers

/// What one subscriber has yet to be told.
final class ContentEventSubscription: Sendable {
    private struct State {
        /// The snapshot being replayed, and how much of it was told.
        var replay: ArraySlice<ContentEvent> = []
        /// Changes after the snapshot.
        var buffer: Deque<ContentEvent> = []
        var needsSnapshot = true
        /// Set while the snapshot closure declined: only an invalidation makes asking again worth while.
        var awaitsInvalidation = false
        var finished = false
        /// More than one only when iterators share the subscription; all of them look again when something happens.
        var waiters: [CheckedContinuation<Void, Never>] = []

        mutating func takeWaiters() -> [CheckedContinuation<Void, Never>] {
            defer { waiters = [] }
            return waiters
        }
    }

    private enum Step {
        case event(ContentEvent)
        case end
        case takeSnapshot
        case wait
    }

    private let state = NIOLockedValueBox(State())
    private let bufferLimit: Int
    private let snapshot: ContentEventHub.Snapshot
    private let released: @Sendable (ObjectIdentifier) -> Void

    init(
        bufferLimit: Int, snapshot: @escaping ContentEventHub.Snapshot,
        released: @escaping @Sendable (ObjectIdentifier) -> Void
    ) {
        self.bufferLimit = bufferLimit
        self.snapshot = snapshot
        self.released = released
    }

    deinit { released(ObjectIdentifier(self)) }

    func append(_ events: [ContentEvent]) {
        let waiters = state.withLockedValue { state -> [CheckedContinuation<Void, Never>] in
            // Whatever is not told before a snapshot is in the snapshot.
            guard !state.needsSnapshot, !state.finished else { return [] }
            if state.buffer.count + events.count > bufferLimit {
                state.buffer = []
                state.needsSnapshot = true
            } else {
                state.buffer.append(contentsOf: events)
            }
            return state.takeWaiters()
        }
        waiters.forEach { $0.resume() }
    }

    func invalidate() {
        let waiters = state.withLockedValue { state in
            state.buffer = []
            state.needsSnapshot = true
            state.awaitsInvalidation = false
            return state.takeWaiters()
        }
        waiters.forEach { $0.resume() }
    }

    func finish() {
        let waiters = state.withLockedValue { state in
            state.finished = true
            return state.takeWaiters()
        }
        waiters.forEach { $0.resume() }
    }

    func next() async -> ContentEvent? {
        while !Task.isCancelled {
            switch state.withLockedValue(step) {
            case .event(let event): return event
            case .end: return nil
            case .takeSnapshot: takeSnapshot()
            case .wait: await wait()
            }
        }
        return nil
    }

    private func step(_ state: inout State) -> Step {
        // A snapshot under way is told to its end even when it is known to be stale: a subscriber that is always slow
        // would otherwise never see the end of one.
        if let event = state.replay.popFirst() {
            if state.replay.isEmpty { state.replay = [] }
            return .event(event)
        }
        if !state.needsSnapshot, let event = state.buffer.popFirst() { return .event(event) }
        if state.finished { return .end }
        return state.needsSnapshot && !state.awaitsInvalidation ? .takeSnapshot : .wait
    }

    private func takeSnapshot() {
        // Decided before asking, so that an invalidation in between is not lost.
        state.withLockedValue { $0.awaitsInvalidation = true }
        snapshot { events in
            self.state.withLockedValue { state in
                guard state.needsSnapshot else { return }
                state.replay = ([.snapshotStarted] + events + [.snapshotComplete])[...]
                state.needsSnapshot = false
                state.awaitsInvalidation = false
            }
        }
    }

    private func wait() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let ready = state.withLockedValue { state in
                    let ready =
                        Task.isCancelled || state.finished || !state.replay.isEmpty
                        || (!state.needsSnapshot && !state.buffer.isEmpty)
                        || (state.needsSnapshot && !state.awaitsInvalidation)
                    if !ready { state.waiters.append(continuation) }
                    return ready
                }
                if ready { continuation.resume() }
            }
        } onCancel: {
            state.withLockedValue { $0.takeWaiters() }.forEach { $0.resume() }
        }
    }
}
