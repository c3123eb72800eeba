import NIOCore
import ResourceLimits

/// One search through the network for the peers nearest to a target, or for a key's providers on the way there.
///
/// It knows nothing of transport: the owner sends the requests it asks for and reports how they ended.
///
/// A request without an answer for ``Limits/stallAfter`` no longer holds a slot and no longer holds up the end of the
/// search, though a late answer is still taken: one dead peer costs that time once instead of a dial and a request
/// time-out for every search that meets it.
///
/// A peer whose introductions turn out to be nobody is not believed any longer: what else it named is asked only when
/// another peer names it too. A liar that invents peers next to the target thus costs a few requests, not the search.
///
/// Of one source address (for IPv6 one /64) only ``Limits/peersPerSource`` peers count, so that a machine with many
/// identities is not all that a search sees, and not all that keeps a record.
struct IterativeQuery: Sendable {
    struct Limits: Sendable {
        /// Requests under way at once.
        var alpha = 10
        /// The search ends when so many of the nearest peers have answered.
        var beta = 3
        /// Size of the result, and of the round that follows the search.
        var k = 20
        /// Closer peers taken from one answer.
        var peersPerAnswer = 40
        /// Peers remembered by one search.
        var knownPeers = 1000
        /// Requests sent by one search.
        var requests = 200
        /// See the type's description.
        var stallAfter: TimeAmount = .milliseconds(400)
        /// Peers of one source that count; the nearest to answer.
        var peersPerSource = 2
        /// Whether loopback addresses count as sources, each as a machine of its own: for tests.
        var countsLoopback = false
        /// Introductions that lead nowhere before their source is doubted, if more than those that lead somewhere.
        var failedIntroductions = 3

        /// What limits per source count an address under; nil when it is exempt.
        func source(of address: IPAddress) -> IPAddress? { countsLoopback ? address.source : address.limitedSource }
    }

    enum PeerState: Equatable, Sendable {
        case heard
        case waiting(stallsAt: NIODeadline)
        /// Asked, and silent for longer than a healthy peer is; not given up.
        case stalled
        case answered
        /// Answered, but of a source that enough peers have answered from.
        case surplus
        case unreachable
        /// Named only by peers that are not believed.
        case doubtful
    }

    private struct Candidate: Sendable {
        var contact: KadContact
        /// Who named it; nil for those known before.
        var source: KadKey?
        let distance: KadDistance
        var state: PeerState
        /// Where it is said to be; empty when it is not to be limited.
        let claims: [IPAddress]
        /// Answers that had to come in one after the other before this peer was heard of.
        let depth: Int

        var isWaiting: Bool {
            if case .waiting = state { true } else { false }
        }
    }

    private enum Phase: Equatable, Sendable { case searching, followUp, finished }

    let target: KadKey
    let own: KadKey
    let limits: Limits
    private var phase = Phase.searching
    /// Nearest first.
    private var candidates: [Candidate] = []
    private var known: Set<KadKey>
    /// By source: introductions that led somewhere, and nowhere.
    private var introductions: [KadKey: (good: Int, bad: Int)] = [:]
    /// Peers that answered, by source.
    private var answersBySource = SourceCounts<IPAddress>()
    private(set) var requestsSent = 0
    /// The longest chain of answers this search needed so far: its sequential round trips.
    private(set) var depth = 0

    /// Begins a search at `seeds`, the nearest peers already known.
    init(target: KadKey, own: KadKey, seeds: [KadContact], limits: Limits = Limits()) {
        self.target = target
        self.own = own
        self.limits = limits
        known = [own]
        for seed in seeds.prefix(limits.knownPeers) { insert(seed, from: nil, depth: 0) }
    }

    var isFinished: Bool { phase == .finished }

    private mutating func insert(_ contact: KadContact, from source: KadKey?, depth: Int) {
        let isDoubtful = source.map(isDoubted) ?? false
        if known.contains(contact.key) {
            // Somebody else names it as well: believe that.
            guard !isDoubtful, let index = index(of: contact.key), candidates[index].state == .doubtful else { return }
            candidates[index].state = .heard
            candidates[index].source = source
            return
        }
        guard known.count <= limits.knownPeers else { return }
        known.insert(contact.key)
        var claims: [IPAddress] = []
        for address in contact.addresses {
            guard let source = address.ipAddress.flatMap({ limits.source(of: $0) }), !claims.contains(source) else {
                continue
            }
            claims.append(source)
        }
        let distance = contact.key.distance(to: target)
        var low = 0
        var high = candidates.count
        while low < high {
            let middle = (low + high) / 2
            if candidates[middle].distance < distance { low = middle + 1 } else { high = middle }
        }
        candidates.insert(
            Candidate(
                contact: contact, source: source, distance: distance, state: isDoubtful ? .doubtful : .heard,
                claims: claims, depth: depth),
            at: low)
    }

    /// Whether enough peers have answered from wherever the candidate is said to be.
    private func isCrowded(_ candidate: Candidate) -> Bool {
        !candidate.claims.isEmpty
            && candidate.claims.allSatisfy { answersBySource[$0] >= limits.peersPerSource }
    }

    private func isDoubted(_ source: KadKey) -> Bool {
        guard let record = introductions[source] else { return false }
        return record.bad >= limits.failedIntroductions && record.bad > record.good
    }

    private mutating func note(_ source: KadKey?, good: Int = 0, bad: Int = 0) {
        guard let source else { return }
        introductions[source, default: (0, 0)].good += good
        introductions[source, default: (0, 0)].bad += bad
        let isDoubted = isDoubted(source)
        for index in candidates.indices where candidates[index].source == source {
            if isDoubted, candidates[index].state == .heard { candidates[index].state = .doubtful }
            if !isDoubted, candidates[index].state == .doubtful { candidates[index].state = .heard }
        }
    }

    private func index(of key: KadKey) -> Int? {
        let distance = key.distance(to: target)
        var low = 0
        var high = candidates.count
        while low < high {
            let middle = (low + high) / 2
            if candidates[middle].distance < distance { low = middle + 1 } else { high = middle }
        }
        return low < candidates.count && candidates[low].distance == distance ? low : nil
    }

    /// The peers to ask now. The owner must report the end of each request.
    mutating func nextRequests(now: NIODeadline) -> [KadContact] {
        var requests: [KadContact] = []
        while true {
            switch phase {
            case .finished:
                return requests
            case .searching:
                if searchIsOver {
                    phase = .followUp
                    continue
                }
                var waiting = candidates.count { $0.isWaiting }
                for index in candidates.indices
                where candidates[index].state == .heard && !isCrowded(candidates[index]) {
                    guard waiting < limits.alpha, start(index, now: now, into: &requests) else { break }
                    waiting += 1
                }
                let canAsk = requestsSent < limits.requests
                if candidates.contains(where: { $0.isWaiting || canAsk && $0.state == .heard && !isCrowded($0) }) {
                    return requests
                }
                // Without any answer there is nothing better than to wait for the slow ones.
                if !hasAnswer, candidates.contains(where: { $0.state == .stalled }) { return requests }
                phase = .followUp
            case .followUp:
                var left = limits.k
                var isWaiting = false
                for index in candidates.indices {
                    guard left > 0 else { break }
                    switch candidates[index].state {
                    case .unreachable, .doubtful, .surplus: continue
                    case .heard where isCrowded(candidates[index]): continue
                    default: break
                    }
                    if candidates[index].state == .heard { _ = start(index, now: now, into: &requests) }
                    // One that stalls makes room for the next: the result should be peers that answer.
                    if candidates[index].state == .stalled { continue }
                    left -= 1
                    if candidates[index].isWaiting { isWaiting = true }
                }
                if isWaiting { return requests }
                if !hasAnswer, candidates.contains(where: { $0.state == .stalled }) { return requests }
                phase = .finished
            }
        }
    }

    private mutating func start(_ index: Int, now: NIODeadline, into requests: inout [KadContact]) -> Bool {
        guard requestsSent < limits.requests else { return false }
        requestsSent += 1
        candidates[index].state = .waiting(stallsAt: now + limits.stallAfter)
        requests.append(candidates[index].contact)
        return true
    }

    private var hasAnswer: Bool { candidates.contains { $0.state == .answered || $0.state == .surplus } }

    /// Whether the nearest `beta` peers that can still be reached have all answered.
    private var searchIsOver: Bool {
        var answered = 0
        for candidate in candidates {
            switch candidate.state {
            case .unreachable, .stalled, .doubtful, .surplus: continue
            case .heard where isCrowded(candidate): continue
            case .answered:
                answered += 1
                if answered == limits.beta { return true }
            case .heard, .waiting: return false
            }
        }
        return false
    }

    /// Takes in the answer of `peer`: the peers it named as closer to the target.
    ///
    /// - Parameter source: Where the answer came from; nil when that is not to be limited.
    mutating func answered(_ peer: KadKey, source: IPAddress? = nil, closer: [KadContact]) {
        guard phase != .finished, let index = index(of: peer) else { return }
        let isLate: Bool
        switch candidates[index].state {
        case .waiting: isLate = false
        case .stalled: isLate = true
        case .heard, .answered, .surplus, .unreachable, .doubtful: return
        }
        candidates[index].state = .answered
        if answersBySource[source] < limits.peersPerSource {
            answersBySource.add(source)
        } else {
            candidates[index].state = .surplus
        }
        note(candidates[index].source, good: 1, bad: isLate ? -1 : 0)
        let below = candidates[index].depth + 1
        depth = max(depth, below)
        for contact in closer.prefix(limits.peersPerAnswer) { insert(contact, from: peer, depth: below) }
    }

    /// Notes that `peer` could not be asked or did not answer.
    mutating func failed(_ peer: KadKey) {
        guard phase != .finished, let index = index(of: peer) else { return }
        let wasStalled = candidates[index].state == .stalled
        candidates[index].state = .unreachable
        if !wasStalled { note(candidates[index].source, bad: 1) }
    }

    /// Moves on from the requests that have been waiting for too long.
    mutating func markStalled(now: NIODeadline) {
        for index in candidates.indices {
            if case .waiting(let stallsAt) = candidates[index].state, stallsAt <= now {
                candidates[index].state = .stalled
                note(candidates[index].source, bad: 1)
            }
        }
    }

    /// When the first of the waiting requests counts as stalled.
    var nextStall: NIODeadline? {
        var earliest: NIODeadline?
        for candidate in candidates {
            if case .waiting(let stallsAt) = candidate.state { earliest = min(earliest ?? stallsAt, stallsAt) }
        }
        return earliest
    }

    /// Ends the search where it is: the owner has what it wanted.
    mutating func stop() { phase = .finished }

    /// The depth at which `peer` was heard of, counting its own answer.
    func depth(of peer: KadKey) -> Int { index(of: peer).map { candidates[$0].depth + 1 } ?? 0 }

    /// Whether all peers the search heard of have answered, those beyond the limit of a source aside.
    var sawEverybody: Bool {
        candidates.allSatisfy { $0.state == .answered || $0.state == .surplus || $0.state == .heard && isCrowded($0) }
    }

    /// The nearest peers found to be alive, nearest first. Complete when the search is finished.
    var result: [KadContact] {
        candidates.lazy.filter { $0.state == .answered }.prefix(limits.k).map(\.contact)
    }
}
