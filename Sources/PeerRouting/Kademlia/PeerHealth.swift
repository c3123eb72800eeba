import NIOCore

/// What is known about peers that failed lately: who comes last in answers, and who is left out.
///
/// A failed fetch demotes a peer: its registry may have trouble of its own. A failed connection or request of the
/// routing layer leaves it out: two layers agree that it is gone. Both pass, faster the fewer failures there were, and
/// at once when the peer shows itself.
struct PeerHealth: Sendable {
    enum Standing: Equatable, Sendable {
        case good
        /// Named after all others.
        case demoted
        /// Named only where nobody else is known.
        case gone
        /// Said goodbye: not named.
        case left
    }

    private struct Entry: Sendable {
        var demotedUntil: NIODeadline = .uptimeNanoseconds(0)
        var goneUntil: NIODeadline = .uptimeNanoseconds(0)
        var failures = 0
        var forgetAfter: NIODeadline
    }

    /// Peers remembered at once; beyond, the stalest are forgotten.
    private static let limit = 4096
    private static let demotion: TimeAmount = .seconds(30)
    private static let absence: TimeAmount = .seconds(60)
    private static let longest: TimeAmount = .minutes(10)

    private var entries: [KadKey: Entry] = [:]

    var count: Int { entries.count }

    func standing(of peer: KadKey, now: NIODeadline) -> Standing {
        guard let entry = entries[peer] else { return .good }
        if entry.goneUntil > now { return .gone }
        return entry.demotedUntil > now ? .demoted : .good
    }

    /// A fetch from the peer failed.
    mutating func fetchFailed(_ peer: KadKey, now: NIODeadline) {
        update(peer, now: now) { $0.demotedUntil = now + Self.backoff(Self.demotion, failures: $0.failures) }
    }

    /// The peer could not be connected to, or did not answer.
    mutating func unreachable(_ peer: KadKey, now: NIODeadline) {
        update(peer, now: now) {
            $0.goneUntil = now + Self.backoff(Self.absence, failures: $0.failures)
            // When it is given another chance, others that did not fail come first.
            $0.demotedUntil = $0.goneUntil + Self.absence
        }
    }

    /// The peer answered or spoke: it is there, whatever its registry does.
    mutating func alive(_ peer: KadKey) {
        guard entries[peer] != nil else { return }
        entries[peer]?.goneUntil = .uptimeNanoseconds(0)
    }

    /// The peer began anew, with a new connection: nothing said before counts.
    mutating func reset(_ peer: KadKey) {
        entries[peer] = nil
    }

    private static func backoff(_ base: TimeAmount, failures: Int) -> TimeAmount {
        min(longest, .nanoseconds(base.nanoseconds << Int64(min(failures - 1, 6))))
    }

    private mutating func update(_ peer: KadKey, now: NIODeadline, _ change: (inout Entry) -> Void) {
        if entries[peer] == nil, entries.count >= Self.limit {
            entries = entries.filter { $0.value.forgetAfter > now }
            if entries.count >= Self.limit,
                let stalest = entries.min(by: { $0.value.forgetAfter < $1.value.forgetAfter })
            {
                entries[stalest.key] = nil
            }
        }
        var entry = entries[peer] ?? Entry(forgetAfter: now)
        entry.failures = min(entry.failures + 1, 16)
        change(&entry)
        entry.forgetAfter = now + .minutes(30)
        entries[peer] = entry
    }
}
