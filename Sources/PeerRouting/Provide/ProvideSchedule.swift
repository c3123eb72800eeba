import HeapModule
import NIOCore

/// The keys this node keeps announced, and when each is due again.
///
/// Announcements are spread over the interval by the keys' positions, which are uniform, seen from this node: the
/// moment moves once through the key space per interval, each node in its own order. Neighbouring keys come due
/// together, so that they share the search for their closest peers, and no two nodes burst at the same time.
struct ProvideSchedule: Sendable {
    struct Timing: Sendable {
        /// From one announcement of a key to the next.
        var interval: TimeAmount = .minutes(15)
        /// Keys due within so much of the first are announced together.
        var window: TimeAmount = .seconds(15)
        /// New keys wait so long for others that come with them.
        var batchDelay: TimeAmount = .milliseconds(75)
        /// First wait after an announcement that reached nobody; doubles up to ``longestRetry``.
        var retry: TimeAmount = .seconds(2)
        var longestRetry: TimeAmount = .minutes(2)
    }

    private struct Key: Sendable {
        let digest: KadKey
        var due: NIODeadline
        var isInFlight = false
        var wasProvided = false
        var failures: UInt8 = 0
    }

    private struct Due: Comparable, Sendable {
        let time: NIODeadline
        let position: KadKey

        static func < (left: Due, right: Due) -> Bool {
            left.time != right.time ? left.time < right.time : left.position < right.position
        }
    }

    let own: KadKey
    let timing: Timing
    private let epoch: NIODeadline
    private var keys: [KadKey: Key] = [:]
    /// Stale elements, whose time is not the key's, are dropped when they come up.
    private var heap = Heap<Due>()

    init(own: KadKey, timing: Timing = Timing(), now: NIODeadline) {
        self.own = own
        self.timing = timing
        epoch = now
    }

    var count: Int { keys.count }
    func contains(_ position: KadKey) -> Bool { keys[position] != nil }
    var positions: some Sequence<KadKey> { keys.keys }

    func key(at position: KadKey) -> ContentKey? {
        keys[position].map { ContentKey(digest: $0.digest, position: position) }
    }

    /// Positions that were announced at least once.
    var provided: some Sequence<KadKey> { keys.lazy.filter { $0.value.wasProvided }.map(\.key) }

    /// Adds a key, due shortly; false when it is in the set already.
    mutating func add(_ key: ContentKey, now: NIODeadline) -> Bool {
        guard keys[key.position] == nil else { return false }
        let due = now + timing.batchDelay
        keys[key.position] = Key(digest: key.digest, due: due)
        heap.insert(Due(time: due, position: key.position))
        return true
    }

    /// Takes a key out of the set; false when it was not in it.
    mutating func remove(_ position: KadKey) -> Bool { keys.removeValue(forKey: position) != nil }

    /// When the next key is due.
    mutating func nextDue() -> NIODeadline? {
        while let first = heap.min {
            if let key = keys[first.position], !key.isInFlight, key.due == first.time { return first.time }
            heap.removeMin()
        }
        return nil
    }

    /// The keys to announce now: none before the first is due, then also those due soon after. They are in flight
    /// until ``completed(_:reached:now:jitter:)``.
    mutating func takeDue(now: NIODeadline, limit: Int) -> [ContentKey] {
        guard let first = nextDue(), first <= now else { return [] }
        var result: [ContentKey] = []
        while result.count < limit, let next = nextDue(), next <= now + timing.window {
            let position = heap.removeMin().position
            guard let digest = keys[position]?.digest else { continue }
            keys[position]?.isInFlight = true
            result.append(ContentKey(digest: digest, position: position))
        }
        return result
    }

    /// Notes how the announcement of a key went, and when it is due again.
    ///
    /// - Parameters:
    ///   - reached: Peers that took the record. With none, the key is tried again soon.
    ///   - jitter: A random number of 0 to 1.
    mutating func completed(_ position: KadKey, reached: Int, now: NIODeadline, jitter: Double) {
        guard var key = keys[position] else { return }
        key.isInFlight = false
        if reached > 0 {
            key.wasProvided = true
            key.failures = 0
            key.due = nextPass(of: position, after: now, jitter: jitter)
        } else {
            let backoff = timing.retry.nanoseconds << Int64(min(key.failures, 10))
            key.failures = min(key.failures + 1, 16)
            let wait = Double(min(backoff, timing.longestRetry.nanoseconds)) * (0.75 + 0.5 * jitter)
            key.due = now + .nanoseconds(Int64(wait))
        }
        keys[position] = key
        heap.insert(Due(time: key.due, position: position))
    }

    /// Puts a key that was taken but not tried back, due at once: there is nobody to announce it to now.
    mutating func putBack(_ position: KadKey, now: NIODeadline) {
        guard keys[position]?.isInFlight == true else { return }
        keys[position]?.isInFlight = false
        keys[position]?.due = now
        heap.insert(Due(time: now, position: position))
    }

    /// When the round through the key space next comes by `position`, at least a fifteenth of the interval from now, so
    /// at most 16/15 of it: with the interval of 15 min, 16 min, where records are good for 19.
    private func nextPass(of position: KadKey, after now: NIODeadline, jitter: Double) -> NIODeadline {
        let interval = timing.interval.nanoseconds
        let phase = Int64(position.distance(to: own).fraction * Double(interval))
        let elapsed = (now - epoch).nanoseconds
        var wait = (phase - elapsed) % interval
        if wait < 0 { wait += interval }
        if wait < interval / 15 { wait += interval }
        // A little jitter keeps nodes started together from staying in step; it shifts a key by at most 1/150.
        return now + .nanoseconds(wait - Int64(Double(interval / 150) * jitter))
    }
}
