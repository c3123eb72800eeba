import NIOCore

/// The lookups under way and their callers. Callers of one key share one search of the network, so that the searches are
/// bounded by the keys that are wanted and not by the number of callers.
///
/// Nothing is kept once a search has ended. A cache belongs to the caller (the mirror's `ProviderLookup`), because only
/// the caller knows when a result has proved useless.
struct LookupTable: Sendable {
    struct Limits: Sendable {
        /// Providers remembered during one search.
        var providersPerKey = 1000
        /// Providers that could not be reached lately, named to a caller for whom nobody else was found.
        var goneProviders = 3
        /// Callers waiting at once; more are answered from local records.
        var callers = 16_384
    }

    /// What a caller receives.
    enum Delivery: Equatable, Sendable {
        case provider(LookupID, KadContact)
        case end(LookupID)
    }

    private struct Caller: Sendable {
        let limit: Int
        var delivered: Set<KadKey> = []

        var isSatisfied: Bool { limit > 0 && delivered.count >= limit }
    }

    private struct Search: Sendable {
        var found: [KadContact]
        /// Never empty: the search ends with its last caller.
        var callers: [LookupID: Caller] = [:]
    }

    let limits: Limits
    private var searches: [KadKey: Search] = [:]
    private var callerKeys: [LookupID: KadKey] = [:]

    init(limits: Limits = Limits()) {
        self.limits = limits
    }

    /// Searches under way.
    var count: Int { searches.count }
    /// Callers waiting.
    var callerCount: Int { callerKeys.count }

    /// Whether a search for `key` is under way.
    func isSearching(_ key: KadKey) -> Bool { searches[key] != nil }

    /// A caller asks for providers of `key`.
    ///
    /// - Parameters:
    ///   - local: The providers known without the network; used only when no search is under way, see
    ///     ``isSearching(_:)``.
    ///   - standing: How a provider has fared lately.
    /// - Returns: What callers receive, and whether the owner must start a search.
    mutating func begin(
        _ id: LookupID, key: KadKey, limit: Int, local: [KadContact], standing: (KadKey) -> PeerHealth.Standing
    ) -> (deliveries: [Delivery], needsSearch: Bool) {
        let joins = searches[key] != nil
        var search = searches.removeValue(forKey: key) ?? Search(found: local.filter { !$0.addresses.isEmpty })
        var caller = Caller(limit: limit)
        var deliveries = Self.deliver(search.found, to: id, &caller, onlyGood: true, standing: standing)
        let isFull = callerKeys.count >= limits.callers
        if !caller.isSatisfied, !isFull {
            search.callers[id] = caller
            callerKeys[id] = key
            searches[key] = search
            return (deliveries, !joins)
        }
        if !caller.isSatisfied { deliveries += deliverRest(search.found, to: id, &caller, standing: standing) }
        if joins { searches[key] = search }
        return (deliveries + [.end(id)], false)
    }

    private static func deliver(
        _ contacts: [KadContact], to id: LookupID, _ caller: inout Caller, onlyGood: Bool,
        standing: (KadKey) -> PeerHealth.Standing
    ) -> [Delivery] {
        var deliveries: [Delivery] = []
        for contact in contacts where !caller.isSatisfied && !contact.addresses.isEmpty {
            let standing = standing(contact.key)
            guard standing == .good || (standing == .demoted && !onlyGood) else { continue }
            if caller.delivered.insert(contact.key).inserted { deliveries.append(.provider(id, contact)) }
        }
        return deliveries
    }

    /// What is held back until no better provider can come: those demoted, and for a caller who would else have nothing, a
    /// few that could not be reached lately.
    private func deliverRest(
        _ contacts: [KadContact], to id: LookupID, _ caller: inout Caller, standing: (KadKey) -> PeerHealth.Standing
    ) -> [Delivery] {
        let deliveries = Self.deliver(contacts, to: id, &caller, onlyGood: false, standing: standing)
        guard caller.delivered.isEmpty else { return deliveries }
        let gone = contacts.filter { !$0.addresses.isEmpty && standing($0.key) == .gone }
        return gone.prefix(caller.limit > 0 ? min(caller.limit, limits.goneProviders) : limits.goneProviders)
            .map { .provider(id, $0) }
    }

    /// Providers of `key` were found, or announced themselves.
    ///
    /// - Returns: What callers receive, and whether the search has ended because every caller has enough.
    mutating func found(
        _ contacts: [KadContact], for key: KadKey, standing: (KadKey) -> PeerHealth.Standing
    ) -> (deliveries: [Delivery], isSatisfied: Bool) {
        guard var search = searches.removeValue(forKey: key) else { return ([], false) }
        for contact in contacts {
            if let index = search.found.firstIndex(where: { $0.key == contact.key }) {
                if search.found[index].addresses.isEmpty { search.found[index].addresses = contact.addresses }
            } else if search.found.count < limits.providersPerKey {
                search.found.append(contact)
            }
        }
        var deliveries: [Delivery] = []
        for (id, caller) in search.callers.sorted(by: { $0.key.number < $1.key.number }) {
            var caller = caller
            deliveries += Self.deliver(search.found, to: id, &caller, onlyGood: true, standing: standing)
            if caller.isSatisfied {
                deliveries.append(.end(id))
                search.callers[id] = nil
                callerKeys[id] = nil
            } else {
                search.callers[id] = caller
            }
        }
        if search.callers.isEmpty { return (deliveries, true) }
        searches[key] = search
        return (deliveries, false)
    }

    /// The search for `key` has ended; its callers receive what was held back, and the end.
    mutating func searchEnded(_ key: KadKey, standing: (KadKey) -> PeerHealth.Standing) -> [Delivery] {
        guard let search = searches.removeValue(forKey: key) else { return [] }
        var deliveries: [Delivery] = []
        for (id, caller) in search.callers.sorted(by: { $0.key.number < $1.key.number }) {
            var caller = caller
            deliveries += deliverRest(search.found, to: id, &caller, standing: standing)
            deliveries.append(.end(id))
            callerKeys[id] = nil
        }
        return deliveries
    }

    /// A caller no longer waits.
    ///
    /// - Returns: The key whose search has lost its last caller and is to be ended.
    mutating func cancel(_ id: LookupID) -> KadKey? {
        guard let key = callerKeys.removeValue(forKey: id), var search = searches.removeValue(forKey: key) else {
            return nil
        }
        search.callers[id] = nil
        if search.callers.isEmpty { return key }
        searches[key] = search
        return nil
    }
}

/// Identifies one call of a lookup.
struct LookupID: Hashable, Sendable {
    let number: UInt64
}
