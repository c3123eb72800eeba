import DequeModule
import NIOCore

/// The searches for providers under way and those just ended, shared by all who ask for the same key.
///
/// It decides who is told what and when a search of the network is needed; the owner runs the searches.
struct LookupCache: Sendable {
    struct Limits: Sendable {
        /// How long providers found are answered without asking the network again.
        var validity: TimeAmount = .seconds(5)
        /// Older than this, a result that is shorter than wanted is refreshed while it is being used.
        var refreshAfter: TimeAmount = .milliseconds(2500)
        /// How long "nobody has it" is believed: long enough to take the load of a burst of requests, short enough
        /// that a node that has just fetched the content is found by the next one.
        var negativeValidity: TimeAmount = .seconds(1)
        /// Keys remembered; the oldest make room.
        var keys = 10_000
        /// Providers remembered for one key.
        var providersPerKey = 1000
        /// Callers waiting at once; more are answered with what is known.
        var waiters = 16_384
    }

    /// What has to be told to a caller.
    enum Delivery: Equatable, Sendable {
        case provider(LookupID, KadContact)
        case end(LookupID)
    }

    private struct Waiter: Sendable {
        let limit: Int
        var delivered: Set<KadKey> = []

        var isSatisfied: Bool { limit > 0 && delivered.count >= limit }
    }

    private struct Entry: Sendable {
        var found: [KadContact] = []
        /// Set while a search of the network runs.
        var isSearching = false
        var finishedAt: NIODeadline
        /// Whether the last search ended by itself rather than because all callers had enough.
        var isExhaustive = false
        var waiters: [LookupID: Waiter] = [:]
    }

    let limits: Limits
    private var entries: [KadKey: Entry] = [:]
    /// Keys in the order in which they came; may hold keys no longer present.
    private var order: Deque<KadKey> = []
    private var waiterKeys: [LookupID: KadKey] = [:]

    init(limits: Limits = Limits()) {
        self.limits = limits
    }

    var count: Int { entries.count }
    var waiterCount: Int { waiterKeys.count }

    /// Whether what is cached for `key` can be answered, or is being sought.
    func isFresh(_ key: KadKey, now: NIODeadline) -> Bool {
        guard let entry = entries[key] else { return false }
        let validity = entry.found.isEmpty ? limits.negativeValidity : limits.validity
        return entry.isSearching || now - entry.finishedAt < validity
    }

    /// A caller asks for `key`.
    ///
    /// - Parameters:
    ///   - local: The providers known without the network; looked at only when nothing fresh is cached, see
    ///     ``isFresh(_:now:)``.
    ///   - standing: How a provider has fared lately.
    /// - Returns: What to tell callers, and whether the owner must search the network.
    mutating func begin(
        _ id: LookupID, key: KadKey, limit: Int, local: [KadContact], now: NIODeadline,
        standing: (KadKey) -> PeerHealth.Standing
    ) -> (deliveries: [Delivery], needsSearch: Bool) {
        let isNew = entries[key] == nil
        let isFresh = isFresh(key, now: now)
        var entry = entries[key] ?? Entry(finishedAt: now)
        entries[key] = nil
        var needsSearch = false
        if !entry.isSearching {
            if !isFresh {
                entry.found = local.filter { !$0.addresses.isEmpty }
                needsSearch = true
            }
            let age = now - entry.finishedAt
            let isShort = limit <= 0 || entry.found.count { standing($0.key) == .good } < limit
            if !needsSearch, isShort, !entry.found.isEmpty, age >= limits.refreshAfter || !entry.isExhaustive {
                needsSearch = true
            }
        }
        var waiter = Waiter(limit: limit)
        var deliveries = Self.deliver(entry.found, to: id, &waiter, onlyGood: true, standing: standing)
        if waiter.isSatisfied {
            needsSearch = false
            deliveries.append(.end(id))
        } else if (entry.isSearching || needsSearch) && waiterKeys.count < limits.waiters {
            entry.waiters[id] = waiter
            waiterKeys[id] = key
            if needsSearch { entry.isSearching = true }
        } else {
            needsSearch = false
            deliveries += Self.deliver(entry.found, to: id, &waiter, onlyGood: false, standing: standing)
            deliveries.append(.end(id))
        }
        if isNew {
            makeRoom()
            order.append(key)
        }
        if !isFresh, !entry.isSearching {
            // Answered from local records alone: good for other callers who want no more than that.
            entry.isExhaustive = false
            entry.finishedAt = now
        }
        entries[key] = entry
        return (deliveries, needsSearch)
    }

    private static func deliver(
        _ contacts: [KadContact], to id: LookupID, _ waiter: inout Waiter, onlyGood: Bool,
        standing: (KadKey) -> PeerHealth.Standing
    ) -> [Delivery] {
        var deliveries: [Delivery] = []
        for contact in contacts where !waiter.isSatisfied && !contact.addresses.isEmpty {
            let standing = standing(contact.key)
            guard standing == .good || (standing == .demoted && !onlyGood) else { continue }
            if waiter.delivered.insert(contact.key).inserted { deliveries.append(.provider(id, contact)) }
        }
        return deliveries
    }

    /// Somebody was found to provide `key`, or announced it.
    ///
    /// - Returns: What to tell callers, and whether a running search has become needless.
    mutating func found(
        _ contacts: [KadContact], for key: KadKey, now: NIODeadline, standing: (KadKey) -> PeerHealth.Standing
    ) -> (deliveries: [Delivery], isSatisfied: Bool) {
        guard var entry = entries[key] else { return ([], false) }
        entries[key] = nil
        for contact in contacts {
            if let index = entry.found.firstIndex(where: { $0.key == contact.key }) {
                if entry.found[index].addresses.isEmpty { entry.found[index].addresses = contact.addresses }
            } else if entry.found.count < limits.providersPerKey {
                // A first provider turns "nobody has it" into a fresh result.
                if entry.found.isEmpty, !entry.isSearching {
                    entry.finishedAt = now
                    entry.isExhaustive = false
                }
                entry.found.append(contact)
            }
        }
        var deliveries: [Delivery] = []
        for (id, waiter) in entry.waiters.sorted(by: { $0.key.number < $1.key.number }) {
            var waiter = waiter
            deliveries += Self.deliver(entry.found, to: id, &waiter, onlyGood: true, standing: standing)
            if waiter.isSatisfied {
                deliveries.append(.end(id))
                entry.waiters[id] = nil
                waiterKeys[id] = nil
            } else {
                entry.waiters[id] = waiter
            }
        }
        let isSatisfied = entry.isSearching && entry.waiters.isEmpty
        entries[key] = entry
        return (deliveries, isSatisfied)
    }

    /// The search for `key` has ended.
    mutating func searchEnded(
        _ key: KadKey, isExhaustive: Bool, now: NIODeadline, standing: (KadKey) -> PeerHealth.Standing
    ) -> [Delivery] {
        guard var entry = entries[key], entry.isSearching else { return [] }
        var deliveries: [Delivery] = []
        for (id, waiter) in entry.waiters.sorted(by: { $0.key.number < $1.key.number }) {
            var waiter = waiter
            deliveries += Self.deliver(entry.found, to: id, &waiter, onlyGood: false, standing: standing)
            deliveries.append(.end(id))
            waiterKeys[id] = nil
        }
        entry.waiters = [:]
        entry.isSearching = false
        entry.isExhaustive = isExhaustive
        entry.finishedAt = now
        entries[key] = entry
        return deliveries
    }

    /// A caller no longer waits. The search goes on and fills the cache: it is likely to be asked again.
    mutating func cancel(_ id: LookupID) {
        guard let key = waiterKeys.removeValue(forKey: id) else { return }
        entries[key]?.waiters[id] = nil
    }

    /// Forgets what was found for `key` when nothing is being searched: this node's own holdings changed.
    mutating func forget(_ key: KadKey) {
        if entries[key]?.isSearching == false { entries[key] = nil }
    }

    /// Keeps the number of entries within its limit by dropping the oldest that nobody waits for.
    private mutating func makeRoom() {
        var attempts = 0
        while entries.count >= limits.keys || order.count > 4 * limits.keys, attempts < 64,
            let oldest = order.popFirst()
        {
            attempts += 1
            guard let entry = entries[oldest] else { continue }
            if entry.isSearching { order.append(oldest) } else { entries[oldest] = nil }
        }
    }
}

/// One caller's wish for providers.
struct LookupID: Hashable, Sendable {
    let number: UInt64
}
