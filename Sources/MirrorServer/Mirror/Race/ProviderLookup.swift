import DequeModule
import NIOConcurrencyHelpers
import NIOCore
import PeerRoutingCore

/// Looks up the providers of keys for all requests. The one cache of lookups: requests for one key share a lookup, its
/// result is kept for a while, and ``invalidate(_:)`` drops it.
///
/// A lookup continues when the request that started it has ended, so that the next request finds its result.
final class ProviderLookup: Sendable {
    struct Limits: Sendable {
        /// How long providers are kept.
        var lifetime: TimeAmount = .seconds(5)
        /// How long an empty result is kept.
        var emptyLifetime: TimeAmount = .seconds(1)
        /// How long one lookup may run.
        var duration: TimeAmount = .seconds(10)
        /// Lookups that run at the same time; more are queued.
        var concurrent = 1024
        /// Keys that are cached or looked up. Beyond it a lookup finds nothing.
        var keys = 16_384
        /// Providers of one key.
        var peers = 20
    }

    /// Receives the events of a lookup, on its event loop.
    struct Subscriber: Sendable {
        let eventLoop: any EventLoop
        /// The lookup, which was queued, has started.
        let started: @Sendable () -> Void
        let found: @Sendable (Peer) -> Void
        let ended: @Sendable () -> Void
    }

    /// What is known when a lookup is asked for.
    struct Snapshot: Sendable {
        var peers: [Peer]
        /// Whether the result is cached: no events follow.
        var isComplete: Bool
        /// Whether the lookup is queued behind others; the subscriber receives its start.
        var isQueued = false
        /// Identifies the subscription for ``unsubscribe(_:key:)``.
        var subscription: UInt64
    }

    private struct Entry {
        var peers: [Peer] = []
        var isComplete = false
        var isQueued = false
        var expires = NIODeadline.distantFuture
        var subscribers: [UInt64: Subscriber] = [:]
        /// Distinguishes this lookup from an earlier one for the same key.
        var generation: UInt64
    }

    private struct State {
        var entries: [String: Entry] = [:]
        var running = 0
        var queue: Deque<String> = []
        var next: UInt64 = 0
    }

    private let router: any PeerRouter
    private let limits: Limits
    private let state = NIOLockedValueBox(State())

    init(router: any PeerRouter, limits: Limits = Limits()) {
        self.router = router
        self.limits = limits
    }

    /// Lookups that run now.
    var runningLookups: Int { state.withLockedValue { $0.running } }

    /// Looks up the providers of `key`.
    ///
    /// - Returns: what is known already. The subscriber receives what is found after that.
    func find(_ key: String, _ subscriber: Subscriber) -> Snapshot {
        let now = NIODeadline.now()
        let (snapshot, starts) = state.withLockedValue { state -> (Snapshot, UInt64?) in
            state.next += 1
            let id = state.next
            if var entry = state.entries[key], now < entry.expires {
                let snapshot = Snapshot(
                    peers: entry.peers, isComplete: entry.isComplete, isQueued: entry.isQueued, subscription: id)
                if !entry.isComplete {
                    entry.subscribers[id] = subscriber
                    state.entries[key] = entry
                }
                return (snapshot, nil)
            }
            if state.entries.count >= limits.keys { Self.makeRoom(&state, now: now) }
            guard state.entries.count < limits.keys else {
                return (Snapshot(peers: [], isComplete: true, subscription: id), nil)
            }
            let isQueued = state.running >= limits.concurrent
            state.entries[key] = Entry(isQueued: isQueued, subscribers: [id: subscriber], generation: id)
            let snapshot = Snapshot(peers: [], isComplete: false, isQueued: isQueued, subscription: id)
            if isQueued {
                state.queue.append(key)
                return (snapshot, nil)
            }
            state.running += 1
            return (snapshot, id)
        }
        if let starts { start(key, generation: starts, on: subscriber.eventLoop) }
        return snapshot
    }

    /// Ends a subscription. The lookup continues.
    func unsubscribe(_ subscription: UInt64, key: String) {
        state.withLockedValue { _ = $0.entries[key]?.subscribers.removeValue(forKey: subscription) }
    }

    /// Drops the cached result of `key`, because its peers have failed: the next request starts a new lookup.
    func invalidate(_ key: String) {
        state.withLockedValue { state in
            if state.entries[key]?.isComplete ?? false { state.entries[key] = nil }
        }
    }

    private func start(_ key: String, generation: UInt64, on eventLoop: any EventLoop) {
        let task = Task {
            for await peer in router.providers(for: key, limit: limits.peers) {
                found(peer, key, generation)
            }
            ended(key, generation, on: eventLoop)
        }
        let deadline = eventLoop.scheduleTask(in: limits.duration) { task.cancel() }
        Task {
            await task.value
            deadline.cancel()
        }
    }

    private func found(_ peer: Peer, _ key: String, _ generation: UInt64) {
        let subscribers = state.withLockedValue { state -> [Subscriber] in
            guard var entry = state.entries[key], entry.generation == generation else { return [] }
            guard entry.peers.count < limits.peers, !entry.peers.contains(where: { $0.id == peer.id }) else {
                return []
            }
            entry.peers.append(peer)
            state.entries[key] = entry
            return Array(entry.subscribers.values)
        }
        for subscriber in subscribers {
            subscriber.eventLoop.execute { subscriber.found(peer) }
        }
    }

    private func ended(_ key: String, _ generation: UInt64, on eventLoop: any EventLoop) {
        // Before the router has joined the cluster, nothing found says nothing.
        let emptyLifetime = router.isReady ? limits.emptyLifetime : .zero
        let (subscribers, next) = state.withLockedValue { state -> ([Subscriber], (String, Entry)?) in
            var subscribers: [Subscriber] = []
            if var entry = state.entries[key], entry.generation == generation {
                subscribers = Array(entry.subscribers.values)
                entry.subscribers = [:]
                entry.isComplete = true
                entry.expires = .now() + (entry.peers.isEmpty ? emptyLifetime : limits.lifetime)
                state.entries[key] = entry
            }
            state.running -= 1
            while let key = state.queue.popFirst() {
                guard var entry = state.entries[key], entry.isQueued else { continue }
                // All its subscribers have left.
                if entry.subscribers.isEmpty {
                    state.entries[key] = nil
                    continue
                }
                state.running += 1
                entry.isQueued = false
                state.entries[key] = entry
                return (subscribers, (key, entry))
            }
            return (subscribers, nil)
        }
        for subscriber in subscribers { subscriber.eventLoop.execute(subscriber.ended) }
        guard let (nextKey, entry) = next else { return }
        for subscriber in entry.subscribers.values { subscriber.eventLoop.execute(subscriber.started) }
        start(nextKey, generation: entry.generation, on: eventLoop)
    }

    /// Drops what has expired, and an eighth of the cached results if that is not enough: those that expire first.
    private static func makeRoom(_ state: inout State, now: NIODeadline) {
        state.entries = state.entries.filter { !$0.value.isComplete || now < $0.value.expires }
        guard state.entries.count > 0 else { return }
        let complete = state.entries.filter(\.value.isComplete).sorted { $0.value.expires < $1.value.expires }
        for (key, _) in complete.prefix(max(1, state.entries.count / 8)) { state.entries[key] = nil }
    }
}
