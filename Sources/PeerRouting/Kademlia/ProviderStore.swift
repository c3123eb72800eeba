import NIOCore

/// The provider records other nodes have given us to keep.
///
/// A record is eight bytes: providers are numbered, and their addresses kept once each. Everything is bounded: what is
/// refused is the newest, except that records nearer to this node's position, for which it is one of the few keepers,
/// make room among those farther away.
struct ProviderStore: Sendable {
    struct Limits: Sendable {
        var total = 1_000_000
        var perProvider = 100_000
        var perKey = 2_000
        /// How long a record is believed after its announcement: the interval at which providers repeat it (15 min)
        /// and twice the delay they may have (2 min).
        var validity: TimeAmount = .minutes(19)
        /// How long a provider's addresses are believed.
        var addressValidity: TimeAmount = .hours(1)
    }

    enum Outcome: Equatable, Sendable {
        case added
        case refreshed
        /// The provider has as many records as one may have.
        case providerFull
        /// The key has as many providers as are kept.
        case keyFull
        /// The store is full of records nearer to this node.
        case storeFull
    }

    private struct Record: Sendable {
        let provider: UInt32
        /// In tenths of a second since the store was made.
        var expires: UInt32
    }

    private struct Provider: Sendable {
        var contact: KadContact
        var addressesUntil: NIODeadline
        var recordCount = 0
        /// False once the provider's records were taken back; the number is used again when the last has been swept.
        var isLive = true
    }

    private static let shardCount = 64

    let own: KadKey
    let limits: Limits
    private let epoch: NIODeadline
    /// By the last bits of the key, so that sweeping can be done in small portions.
    private var shards: [[KadKey: [Record]]]
    /// No key of the shard has a shorter common prefix with our position than this.
    private var shallowest: [Int]
    private var providers: [Provider] = []
    private var numbers: [KadKey: UInt32] = [:]
    private var freeNumbers: [UInt32] = []
    private var nextShard = 0
    /// Records held, expired ones that were not swept yet included.
    private(set) var count = 0
    /// Records refused because of a limit, since the start.
    private(set) var refused: UInt64 = 0

    init(own: KadKey, limits: Limits = Limits(), now: NIODeadline) {
        self.own = own
        self.limits = limits
        epoch = now
        shards = Array(repeating: [:], count: Self.shardCount)
        shallowest = Array(repeating: 0, count: Self.shardCount)
    }

    /// Providers of whom at least one record is held.
    var providerCount: Int { numbers.count }

    private func shard(of key: KadKey) -> Int { Int(truncatingIfNeeded: key.words.3) & (Self.shardCount - 1) }

    private func tenths(_ time: NIODeadline) -> UInt32 {
        let tenths = max(0, (time - epoch).nanoseconds) / 100_000_000
        return UInt32(clamping: tenths)
    }

    /// Records that `provider` holds the content at `key`.
    ///
    /// - Parameter isTrusted: Whether the provider is known to be alive by our own observation. Where a key is full,
    ///   such a provider takes the place of one that is not, so that invented identities cannot shut out real nodes.
    mutating func add(
        _ key: KadKey, provider contact: KadContact, isTrusted: (KadKey) -> Bool = { _ in false }, now: NIODeadline
    ) -> Outcome {
        let shard = shard(of: key)
        let expires = tenths(now + limits.validity)
        let present = tenths(now)
        if let number = numbers[contact.key] {
            providers[Int(number)].contact.addresses = contact.addresses
            providers[Int(number)].addressesUntil = now + limits.addressValidity
            if let index = shards[shard][key]?.firstIndex(where: { $0.provider == number }) {
                shards[shard][key]?[index].expires = expires
                return .refreshed
            }
            guard providers[Int(number)].recordCount < limits.perProvider else { return refuse(.providerFull) }
        }
        if let records = shards[shard][key], records.count >= limits.perKey {
            removeRecords(of: key, shard: shard) { $0.expires <= present }
            if shards[shard][key]?.count ?? 0 >= limits.perKey {
                guard isTrusted(contact.key),
                    let victim = records.first(where: { !isTrusted(providers[Int($0.provider)].contact.key) })
                else { return refuse(.keyFull) }
                removeRecords(of: key, shard: shard) { $0.provider == victim.provider }
            }
        }
        if count >= limits.total, !makeRoom(for: key, shard: shard) { return refuse(.storeFull) }
        let number = number(of: contact, now: now)
        providers[Int(number)].recordCount += 1
        shards[shard][key, default: []].append(Record(provider: number, expires: expires))
        shallowest[shard] = min(shallowest[shard], own.commonPrefixLength(with: key))
        count += 1
        return .added
    }

    private mutating func refuse(_ outcome: Outcome) -> Outcome {
        refused += 1
        return outcome
    }

    private mutating func number(of contact: KadContact, now: NIODeadline) -> UInt32 {
        if let number = numbers[contact.key] { return number }
        let provider = Provider(contact: contact, addressesUntil: now + limits.addressValidity)
        let number: UInt32
        if let free = freeNumbers.popLast() {
            number = free
            providers[Int(free)] = provider
        } else {
            number = UInt32(providers.count)
            providers.append(provider)
        }
        numbers[contact.key] = number
        return number
    }

    /// Drops the farthest sixteenth of the shard's keys when they are farther than `key`.
    private mutating func makeRoom(for key: KadKey, shard: Int) -> Bool {
        let depth = own.commonPrefixLength(with: key)
        guard shallowest[shard] < depth else { return false }
        let farther = shards[shard].keys.map { (depth: own.commonPrefixLength(with: $0), key: $0) }
            .filter { $0.depth < depth }
            .sorted { $0.depth != $1.depth ? $0.depth < $1.depth : $0.key < $1.key }
        guard !farther.isEmpty else {
            shallowest[shard] = depth
            return false
        }
        for victim in farther.prefix(max(1, shards[shard].count / 16)) {
            removeRecords(of: victim.key, shard: shard) { _ in true }
        }
        return true
    }

    private mutating func removeRecords(of key: KadKey, shard: Int, where condition: (Record) -> Bool) {
        guard let records = shards[shard][key] else { return }
        var kept: [Record] = []
        for record in records {
            if condition(record) { release(record.provider) } else { kept.append(record) }
        }
        shards[shard][key] = kept.isEmpty ? nil : kept
    }

    private mutating func release(_ number: UInt32) {
        count -= 1
        providers[Int(number)].recordCount -= 1
        guard providers[Int(number)].recordCount == 0 else { return }
        if providers[Int(number)].isLive { numbers[providers[Int(number)].contact.key] = nil }
        providers[Int(number)].contact.addresses = []
        freeNumbers.append(number)
    }

    /// The providers of `key` whose records have not expired, with the addresses still believed.
    func providers(of key: KadKey, now: NIODeadline) -> [KadContact] {
        guard let records = shards[shard(of: key)][key] else { return [] }
        let present = tenths(now)
        return records.compactMap { record in
            let provider = providers[Int(record.provider)]
            guard record.expires > present, provider.isLive else { return nil }
            guard provider.addressesUntil > now else {
                return KadContact(id: provider.contact.id, key: provider.contact.key, addresses: [])
            }
            return provider.contact
        }
    }

    /// Takes back all records of a provider at once.
    mutating func removeAll(of provider: KadKey) {
        guard let number = numbers.removeValue(forKey: provider) else { return }
        // The records themselves go with the next sweep of their shard.
        providers[Int(number)].isLive = false
    }

    /// Updates the addresses of a provider; does nothing for a peer that is none.
    mutating func setAddresses(_ addresses: [Multiaddr], of provider: KadKey, now: NIODeadline) {
        guard let number = numbers[provider] else { return }
        providers[Int(number)].contact.addresses = addresses
        providers[Int(number)].addressesUntil = now + limits.addressValidity
    }

    /// Removes what has expired from the next one of 64 portions.
    mutating func sweepPortion(now: NIODeadline) {
        let shard = nextShard
        nextShard = (nextShard + 1) % Self.shardCount
        let present = tenths(now)
        let keys = shards[shard].filter { _, records in
            records.contains { $0.expires <= present || !providers[Int($0.provider)].isLive }
        }.keys
        for key in keys {
            guard let records = shards[shard][key] else { continue }
            let dead = Set(records.map(\.provider).filter { !providers[Int($0)].isLive })
            removeRecords(of: key, shard: shard) { $0.expires <= present || dead.contains($0.provider) }
        }
    }

    /// Portions ``sweepPortion(now:)`` needs to visit everything.
    static var portions: Int { shardCount }
}
