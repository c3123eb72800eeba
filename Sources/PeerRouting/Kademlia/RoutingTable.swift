import NIOCore
import ResourceLimits

/// The peers a node keeps in mind: up to `bucketSize` for each length of common prefix with the node's own position.
///
/// Only peers that were authenticated and answered a request are put in, at most ``sourceLimit`` of one source address
/// (for IPv6 one /64). A live entry is never given up for a newcomer. So a stranger with many identities can neither push
/// out the peers that are known to work nor fill the table before they come.
struct RoutingTable: Sendable {
    struct Entry: Sendable {
        var contact: KadContact
        /// When the peer last answered or, authenticated, spoke to us.
        var lastHeard: NIODeadline
        /// Where the peer was met, for limits per source; nil for loopback and when that is not known.
        var source: IPAddress?

        var key: KadKey { contact.key }
    }

    enum Admission: Equatable, Sendable {
        case added
        /// Added in the place of a peer not heard from for long.
        case replaced(PeerID)
        case updated
        case full
    }

    /// The owner's position. It is never an entry.
    let own: KadKey
    let bucketSize: Int
    /// An entry not heard from for so long gives way to a newcomer.
    let replaceableAfter: TimeAmount
    /// Entries of one source.
    let sourceLimit: Int
    private var bySource = SourceCounts<IPAddress>()
    /// By common prefix length; as many as were needed so far, at most 257.
    private(set) var buckets: [[Entry]] = []
    private(set) var count = 0

    init(own: KadKey, bucketSize: Int = 20, replaceableAfter: TimeAmount = .minutes(20), sourceLimit: Int = 4) {
        self.sourceLimit = sourceLimit
        self.own = own
        self.bucketSize = bucketSize
        self.replaceableAfter = replaceableAfter
    }

    var isEmpty: Bool { count == 0 }

    /// The longest common prefix of an entry, or nil for an empty table.
    var deepestBucket: Int? { buckets.lastIndex { !$0.isEmpty } }

    func bucketIndex(of key: KadKey) -> Int { own.commonPrefixLength(with: key) }

    private func position(of key: KadKey) -> (bucket: Int, index: Int)? {
        let bucket = bucketIndex(of: key)
        guard bucket < buckets.count, let index = buckets[bucket].firstIndex(where: { $0.key == key }) else {
            return nil
        }
        return (bucket, index)
    }

    subscript(key: KadKey) -> Entry? {
        position(of: key).map { buckets[$0.bucket][$0.index] }
    }

    func contains(_ key: KadKey) -> Bool { position(of: key) != nil }

    /// Whether a peer at `key` that is not an entry would be admitted: worth the liveness check.
    func hasRoom(for key: KadKey, from source: IPAddress? = nil, now: NIODeadline) -> Bool {
        guard key != own, bySource[source] < sourceLimit else { return false }
        let bucket = bucketIndex(of: key)
        guard bucket < buckets.count, buckets[bucket].count >= bucketSize else { return true }
        return buckets[bucket].contains { $0.lastHeard + replaceableAfter < now }
    }

    /// Puts in a peer that has passed its liveness check, or refreshes it.
    ///
    /// - Parameter source: Where the peer was met; nil when that is not to be limited.
    mutating func admit(_ contact: KadContact, from source: IPAddress? = nil, now: NIODeadline) -> Admission {
        guard contact.key != own else { return .full }
        if let (bucket, index) = position(of: contact.key) {
            buckets[bucket][index].lastHeard = now
            if !contact.addresses.isEmpty { buckets[bucket][index].contact.addresses = contact.addresses }
            return .updated
        }
        guard bySource[source] < sourceLimit else { return .full }
        let bucket = bucketIndex(of: contact.key)
        while buckets.count <= bucket { buckets.append([]) }
        if buckets[bucket].count < bucketSize {
            buckets[bucket].append(Entry(contact: contact, lastHeard: now, source: source))
            count += 1
            bySource.add(source)
            return .added
        }
        guard
            let oldest = buckets[bucket].indices.min(by: {
                buckets[bucket][$0].lastHeard < buckets[bucket][$1].lastHeard
            }), buckets[bucket][oldest].lastHeard + replaceableAfter < now
        else { return .full }
        let victim = buckets[bucket][oldest]
        buckets[bucket][oldest] = Entry(contact: contact, lastHeard: now, source: source)
        bySource.remove(victim.source)
        bySource.add(source)
        return .replaced(victim.contact.id)
    }

    /// Notes a sign of life of an entry; does nothing for other peers.
    mutating func heard(from key: KadKey, now: NIODeadline) {
        guard let (bucket, index) = position(of: key) else { return }
        buckets[bucket][index].lastHeard = now
    }

    /// Replaces the addresses of an entry; does nothing for other peers.
    mutating func setAddresses(_ addresses: [Multiaddr], of key: KadKey) {
        guard let (bucket, index) = position(of: key) else { return }
        buckets[bucket][index].contact.addresses = addresses
    }

    /// Takes an entry out; false when there was none.
    @discardableResult
    mutating func remove(_ key: KadKey) -> Bool {
        guard let (bucket, index) = position(of: key) else { return false }
        bySource.remove(buckets[bucket].remove(at: index).source)
        count -= 1
        return true
    }

    /// The `limit` entries nearest to `target`, nearest first, but at most `perSource` of one source.
    func nearest(to target: KadKey, limit: Int, perSource: Int) -> [KadContact] {
        var counts = SourceCounts<IPAddress>()
        var result: [KadContact] = []
        for contact in nearest(to: target, limit: count) where result.count < limit {
            let source = self[contact.key]?.source
            guard counts[source] < perSource else { continue }
            counts.add(source)
            result.append(contact)
        }
        return result
    }

    /// The `limit` entries nearest to `target`, nearest first.
    func nearest(to target: KadKey, limit: Int, excluding excluded: KadKey? = nil) -> [KadContact] {
        guard limit > 0, count > 0 else { return [] }
        // Entries fall into groups of increasing distance: the bucket of the target's own prefix length, then all
        // deeper buckets together, then the shallower ones, deepest first. Only the groups needed are sorted.
        let depth = min(own.commonPrefixLength(with: target), buckets.count)
        var result: [Position] = []
        result.reserveCapacity(2 * limit)
        func take(_ group: Range<Int>) {
            let first = result.count
            for bucket in group {
                for index in buckets[bucket].indices where buckets[bucket][index].key != excluded {
                    let distance = buckets[bucket][index].key.distance(to: target)
                    result.append(Position(distance: distance, bucket: bucket, index: index))
                }
            }
            result[first...].sort { $0.distance < $1.distance }
            if result.count > limit { result.removeLast(result.count - limit) }
        }
        if depth < buckets.count {
            take(depth..<depth + 1)
            if result.count < limit { take(depth + 1..<buckets.count) }
        }
        var shallower = depth - 1
        while result.count < limit, shallower >= 0 {
            take(shallower..<shallower + 1)
            shallower -= 1
        }
        return result.map { buckets[$0.bucket][$0.index].contact }
    }

    /// Where an entry lies: sorted instead of the entries, which take longer to move.
    private struct Position {
        var distance: KadDistance
        var bucket: Int
        var index: Int
    }

    /// Entries not heard from since `limit`, longest silent first.
    func silent(since limit: NIODeadline) -> [Entry] {
        buckets.joined().filter { $0.lastHeard < limit }.sorted { $0.lastHeard < $1.lastHeard }
    }

    /// All entries, in no order that means anything.
    var entries: some Sequence<Entry> { buckets.joined() }
}
