import NIOConcurrencyHelpers

/// Tells the changes of a store to its subscribers; for those who write a backend.
///
/// The backend guards its index with a lock. Under that lock it changes the index and calls ``publish(_:)``; the
/// snapshot closure takes the same lock and calls `deliver` under it. So a snapshot and the changes after it fit
/// together without a gap.
public final class ContentEventHub: Sendable {
    /// Takes the backend's lock and hands over one `imageSet` or `contentAdded` for all there is. A backend that does
    /// not know yet what it holds does not call `deliver`; it calls ``ContentEventHub/invalidate()`` when it does.
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
    ///   - snapshot: tells all there is; see ``Snapshot``.
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

    /// Tells changes. Call it under the lock that guards the index.
    public func publish(_ events: [ContentEvent]) {
        guard !events.isEmpty else { return }
        for subscription in subscriptions() { subscription.append(events) }
    }

    /// Makes every subscriber begin anew with a snapshot, because changes may have been missed.
    public func invalidate() {
        for subscription in subscriptions() { subscription.invalidate() }
    }

    /// Ends all subscriptions, after what they still hold.
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
