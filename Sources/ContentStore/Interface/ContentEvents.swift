import DequeModule
import NIOConcurrencyHelpers
import OCIDistribution

/// One subscription to the changes of a store.
///
/// It holds a bounded number of events for a subscriber that is slow; beyond that they are dropped and replaced by a
/// new snapshot. It is meant for one task: iterators share the subscription, and each event goes to one of them. It
/// ends when the store is shut down or the waiting task is cancelled, and is cancelled when it is released.
public struct ContentEvents: AsyncSequence, Sendable {
    /// One change.
    public typealias Element = ContentEvent
    /// The sequence does not fail.
    public typealias Failure = Never

    let subscription: ContentEventSubscription

    /// Begins to iterate.
    public func makeAsyncIterator() -> Iterator { Iterator(subscription: subscription) }

    /// Gives events one by one.
    public struct Iterator: AsyncIteratorProtocol {
        let subscription: ContentEventSubscription

        /// Waits for the next event; `nil` at the end.
        public mutating func next() async -> ContentEvent? { await subscription.next() }

        /// Waits for the next event; `nil` at the end.
        public mutating func next(isolation actor: isolated (any Actor)?) async -> ContentEvent? {
            await subscription.next()
        }
    }
}

/// A change in a store.
///
/// A subscription begins with a snapshot: ``snapshotStarted``, an ``imageSet(_:)`` for every image, a
/// ``contentAdded(_:)`` for all content, ``snapshotComplete``. Changes follow, in the order in which they happened.
/// When a subscriber lags behind, or the backend missed changes, another snapshot follows, which replaces the
/// subscriber's whole state: content and images that it lacks do not exist any more.
public enum ContentEvent: Sendable, Hashable {
    /// A snapshot begins; it replaces everything before it.
    case snapshotStarted
    /// A name was added, or its target changed.
    case imageSet(StoredImage)
    /// A name was removed.
    case imageRemoved(Reference)
    /// Content was added, or its description (sources, media type) changed.
    case contentAdded(ContentInfo)
    /// Content was removed.
    case contentRemoved(Digest)
    /// The snapshot is complete.
    case snapshotComplete
}

/// Publishes the changes of a store to its subscribers. Used by implementations of ``ContentStore``.
///
/// The backend guards its index with a lock. Under that lock it changes the index and calls ``publish(_:)``; the
/// snapshot closure takes the same lock and calls `deliver` under it. So a snapshot and the changes after it fit
/// together without a gap.
public final class ContentEventHub: Sendable {
    /// Takes the backend's lock and delivers one `imageSet` for each image and one `contentAdded` for each piece of content.
    /// A backend whose index is not complete yet does not call `deliver`; it calls ``ContentEventHub/invalidate()`` when it
    /// is.
    public typealias Snapshot = @Sendable (_ deliver: ([ContentEvent]) -> Void) -> Void

    private struct State {
        var subscribers: [ObjectIdentifier: Weak] = [:]
        var finished = false
    }
    private struct Weak: Sendable {
        weak var subscription: ContentEventSubscription?
    }

    private let state = NIOLockedValueBox(State())
    private let bufferLimit: Int
    private let snapshot: Snapshot

    /// Creates a hub.
    ///
    /// - Parameters:
    ///   - bufferLimit: how many events are kept for a subscriber that is slow, besides a snapshot being replayed.
    ///   - snapshot: delivers the whole state; see ``Snapshot``.
    public init(bufferLimit: Int = 4096, snapshot: @escaping Snapshot) {
        self.bufferLimit = max(1, bufferLimit)
        self.snapshot = snapshot
    }

    /// Begins a subscription, with a snapshot first.
    public func subscribe() -> ContentEvents {
        let subscription = ContentEventSubscription(bufferLimit: bufferLimit, snapshot: snapshot) { [weak self] id in
            self?.state.withLockedValue { _ = $0.subscribers.removeValue(forKey: id) }
        }
        let finished = state.withLockedValue {
            $0.subscribers[ObjectIdentifier(subscription)] = Weak(subscription: subscription)
            return $0.finished
        }
        if finished { subscription.finish() }
        return ContentEvents(subscription: subscription)
    }

    /// Publishes changes. Call it under the lock that guards the index.
    public func publish(_ events: [ContentEvent]) {
        guard !events.isEmpty else { return }
        for subscription in subscriptions() { subscription.append(events) }
    }

    /// Sends every subscriber a new snapshot, because changes may have been missed.
    public func invalidate() {
        for subscription in subscriptions() { subscription.invalidate() }
    }

    /// Ends all subscriptions, after the events they still hold.
    public func finish() {
        state.withLockedValue { $0.finished = true }
        for subscription in subscriptions() { subscription.finish() }
    }

    /// How many subscriptions there are.
    public var subscriberCount: Int { subscriptions().count }

    private func subscriptions() -> [ContentEventSubscription] {
        state.withLockedValue { $0.subscribers.values.compactMap(\.subscription) }
    }
}

/// The queue of one subscriber.
final class ContentEventSubscription: Sendable {
    private struct State {
        /// The rest of the snapshot that is being delivered.
        var replay: ArraySlice<ContentEvent> = []
        /// Changes after the snapshot.
        var buffer: Deque<ContentEvent> = []
        var needsSnapshot = true
        /// Set when the snapshot closure delivered nothing: it is not called again before an invalidation.
        var awaitsInvalidation = false
        var finished = false
        /// More than one only when iterators share the subscription; every change wakes all of them.
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
            // A change that is not delivered before a snapshot is part of the snapshot.
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
        // A snapshot is delivered to its end even when it is known to be stale: a subscriber that is always slow
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
        // Set before the call, so that an invalidation in between is not lost.
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
