/// One subscription to the changes of a store.
///
/// It holds a bounded number of events for a subscriber that is slow; beyond that they are dropped and replaced by a
/// new snapshot. It is meant for one task: iterators share the subscription, and each event goes to one of them. It
/// ends when the store is closed or the waiting task is cancelled, and is given up when it is released.
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
