import OCIDistribution

/// Tags that peers have answered for, as this node has seen it: `tags/list` names them beside the store's own. The DHT cannot list
/// them, because a provider record has the hash of a tag's name only.
///
/// A value type without I/O that is given the time.
struct PeerTags: Sendable {
    /// Most tags that are kept; beyond it the one that was seen longest ago is dropped.
    static let limit = 4096
    /// How long a tag is kept after a peer answered for it: as long as a provider record lives, with some slack.
    static let lifetime: Duration = .seconds(20 * 60)

    private var seen: [Reference: ContinuousClock.Instant] = [:]

    /// The number of tags that are kept.
    var count: Int { seen.count }

    /// Records whether a peer answered for a tag.
    mutating func record(_ tag: Reference, isThere: Bool, now: ContinuousClock.Instant) {
        guard isThere else {
            seen[tag] = nil
            return
        }
        if seen[tag] == nil, seen.count >= Self.limit {
            seen = seen.filter { $0.value + Self.lifetime > now }
            if seen.count >= Self.limit, let oldest = seen.min(by: { $0.value < $1.value }) { seen[oldest.key] = nil }
        }
        seen[tag] = now
    }

    /// The tags of a repository.
    func tags(of repository: String, registry: String, now: ContinuousClock.Instant) -> Set<String> {
        var result: Set<String> = []
        for (reference, time) in seen where time + Self.lifetime > now {
            guard reference.registry == registry, reference.repository == repository, let tag = reference.tag else {
                continue
            }
            result.insert(tag)
        }
        return result
    }
}
