import DequeModule
import NIOConcurrencyHelpers
import NIOCore
import PeerRoutingCore

/// Looks peers up for all requests: requests for one key share a lookup, and what it found is kept for a while.
///
/// A lookup goes on when the request that began it has given up, so that the next one finds its result.
final class PeerFinder: Sendable {
    /// The bounds of looking up.
    struct Limits: Sendable {
        /// How long found peers are kept.
        var lifetime: TimeAmount = .seconds(5)
        /// How long it is remembered that nobody was found.
        var emptyLifetime: TimeAmount = .seconds(1)
        /// How long one lookup may run.
        var duration: TimeAmount = .seconds(10)
        /// Lookups that run at the same time; more wait.
        var concurrent = 1024
        /// Keys that are remembered or waited for. Beyond it a lookup finds nobody.
        var keys = 16_384
        /// Peers asked for with one lookup.
        var peers = 20
    }

    /// What is heard of a lookup, on the event loop that was given.
    struct Subscriber: Sendable {
        let eventLoop: any EventLoop
        /// The lookup, which was queued, has begun.
        let began: @Sendable () -> Void
        let found: @Sendable (Peer) -> Void
        let ended: @Sendable () -> Void
    }

    /// What is known at once.
    struct Known: Sendable {
        var peers: [Peer]
        /// Whether no more will be found; nothing is told to the subscriber then.
        var isComplete: Bool
        /// Whether the lookup waits for others to end; the subscriber is told when it begins.
        var isQueued = false
        /// Names the subscription for ``forget(_:key:)``.
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

    /// Finds who has the content of `key`.
    ///
    /// - Returns: what is known already. The subscriber hears of what comes after that.
    func find(_ key: String, _ subscriber: Subscriber) -> Known {
        let now = NIODeadline.now()
        let (known, begins) = state.withLockedValue { state -> (Known, UInt64?) in
            state.next += 1
            let id = state.next
            if var entry = state.entries[key], now < entry.expires {
                let known = Known(
                    peers: entry.peers, isComplete: entry.isComplete, isQueued: entry.isQueued, subscription: id)
                if !entry.isComplete {
                    entry.subscribers[id] = subscriber
                    state.entries[key] = entry
                }
                return (known, nil)
            }
            if state.entries.count >= limits.keys { Self.sweep(&state, now: now) }
            guard state.entries.count < limits.keys else {
                return (Known(peers: [], isComplete: true, subscription: id), nil)
            }
            let isQueued = state.running >= limits.concurrent
            state.entries[key] = Entry(isQueued: isQueued, subscribers: [id: subscriber], generation: id)
            let known = Known(peers: [], isComplete: false, isQueued: isQueued, subscription: id)
            if isQueued {
                state.queue.append(key)
                return (known, nil)
            }
            state.running += 1
            return (known, id)
        }
        if let begins { begin(key, generation: begins, on: subscriber.eventLoop) }
        return known
    }

    /// The subscriber wants to hear no more. The lookup goes on.
    func forget(_ subscription: UInt64, key: String) {
        state.withLockedValue { _ = $0.entries[key]?.subscribers.removeValue(forKey: subscription) }
    }

    /// What was found for the key proved useless: the next request looks anew.
    func invalidate(_ key: String) {
        state.withLockedValue { state in
            if state.entries[key]?.isComplete ?? false { state.entries[key] = nil }
        }
    }

    private func begin(_ key: String, generation: UInt64, on eventLoop: any EventLoop) {
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
        let (subscribers, next) = state.withLockedValue { state -> ([Subscriber], (String, Entry)?) in
            var subscribers: [Subscriber] = []
            if var entry = state.entries[key], entry.generation == generation {
                subscribers = Array(entry.subscribers.values)
                entry.subscribers = [:]
                entry.isComplete = true
                entry.expires = .now() + (entry.peers.isEmpty ? limits.emptyLifetime : limits.lifetime)
                state.entries[key] = entry
            }
            state.running -= 1
            while let key = state.queue.popFirst() {
                guard var entry = state.entries[key], entry.isQueued else { continue }
                // Nobody waits for it any more.
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
        for subscriber in entry.subscribers.values { subscriber.eventLoop.execute(subscriber.began) }
        begin(nextKey, generation: entry.generation, on: eventLoop)
    }

    private static func sweep(_ state: inout State, now: NIODeadline) {
        state.entries = state.entries.filter { !$0.value.isComplete || now < $0.value.expires }
        guard state.entries.count > 0 else { return }
        // All in use: the complete ones that expire first make room.
        let complete = state.entries.filter(\.value.isComplete).sorted { $0.value.expires < $1.value.expires }
        for (key, _) in complete.prefix(max(1, state.entries.count / 8)) { state.entries[key] = nil }
    }
}
