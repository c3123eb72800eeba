import DequeModule
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// What past requests say of each peer at each address: load, latency, reachability, failures and mismatches.
///
/// A value type without I/O. It is limited: the least recently used peers are dropped first, and mismatches expire.
struct PeerStats: Sendable {
    /// Most peers.
    static let peerLimit = 4096
    /// Most pairs of a peer and content for which it is not asked; the oldest is dropped.
    static let exclusionLimit = 4096
    /// How long a mismatch counts, for the content and for the peer.
    static let mismatchAge: TimeAmount = .minutes(10)
    /// Proven mismatches within ``mismatchAge`` from which a peer is excluded from all content.
    static let exclusionThreshold = 3
    /// How long a peer is deprioritized after a failure. Doubles with each time it is slow or truncates a body again before
    /// it has completed one, up to the upper bound.
    static let deprioritizedTime: ClosedRange<TimeAmount> = .seconds(5)...(.minutes(5))
    /// How long a peer that stalled is not asked for the same content again: a client that comes back for the rest is sent
    /// to the upstream registry, or to another peer.
    static let stallAge: TimeAmount = .minutes(1)
    /// Failures of several transfers within this time count once.
    private static let failureWindow: TimeAmount = .seconds(1)
    /// The first and the longest pause after a failed dial.
    static let dialPause: ClosedRange<TimeAmount> = .milliseconds(500)...(.seconds(15))
    /// The longest pause for a peer that is the last candidate of a request.
    static let urgentDialPause: TimeAmount = .seconds(1)

    /// What a peer is deprioritized for.
    enum Failure: Sendable, Hashable {
        case busy
        case slow
        /// It ended a body early, or its response was not acceptable.
        case truncated
        /// It does not have what it announces.
        case absent
    }

    private struct Entry {
        var inUse = 0
        var openConnections = 0
        var isDialling = false
        var failedDials = 0
        var lastFailedDial: NIODeadline?
        var unreachableUntil: NIODeadline?
        var deprioritizedUntil: NIODeadline?
        /// Verified bodies to which it contributed.
        var verifiedBodies = 0
        /// How often in a row it was slow or truncated a body, and when it last was.
        var failures = 0
        var lastFailure: NIODeadline?
        /// Milliseconds to the first byte, smoothed.
        var latency: Double?
        /// When its proven mismatches were.
        var mismatches: [NIODeadline] = []
        var lastUsed: NIODeadline

        var isProven: Bool { verifiedBodies > 0 }

        func isDeprioritized(now: NIODeadline) -> Bool { deprioritizedUntil.map { now < $0 } ?? false }
    }

    /// Content for which a peer is not asked, because it sent wrong bytes of it or stalled.
    private struct Exclusion: Hashable {
        var peer: PeerEndpoint
        var digest: Digest
    }

    private var peers: [PeerEndpoint: Entry] = [:]
    private var exclusions: [Exclusion: NIODeadline] = [:]
    private var exclusionOrder: Deque<Exclusion> = []
    /// Until when identities that are new at an address are deprioritized, because others failed there.
    private var deprioritizedAddresses: [IPAddress: NIODeadline] = [:]

    /// Whether a peer is asked for one piece of content.
    enum Eligibility: Sendable, Hashable {
        /// The lowest rank is asked first.
        case eligible(rank: Int)
        /// It sent wrong bytes, or stalled.
        case excluded
    }

    /// Whether a peer is asked for content, and its rank among those that are.
    ///
    /// - Parameter isObserved: whether the router knows the address first-hand.
    func eligibility(
        of peer: PeerEndpoint, for digest: Digest?, isObserved: Bool = true, now: NIODeadline
    ) -> Eligibility {
        if let digest, !exclusions.isEmpty, let until = exclusions[Exclusion(peer: peer, digest: digest)], now < until {
            return .excluded
        }
        let entry = peers[peer]
        if let entry, entry.mismatches.count(where: { now - $0 < Self.mismatchAge }) >= Self.exclusionThreshold {
            return .excluded
        }
        // The least used first; among equals the fastest. A peer that has not proved itself comes after one that has, unless
        // that one is busy: so that new peers get requests, too.
        var rank = min(entry?.inUse ?? 0, 1000) * 1000 + Int(min(entry?.latency ?? 0, 500))
        if !(entry?.isProven ?? false) { rank += isObserved ? 1500 : 3500 }
        if isDeprioritized(peer, entry, isObserved: isObserved, now: now) { rank += 10_000_000 }
        if let entry, entry.openConnections == 0, let until = entry.unreachableUntil, now < until {
            rank += 100_000_000
        }
        return .eligible(rank: rank)
    }

    /// Whether a peer is deprioritized for a recent failure: its own, or one of another identity at the same address as long
    /// as nothing speaks for this one.
    func isDeprioritized(_ peer: PeerEndpoint, isObserved: Bool = true, now: NIODeadline) -> Bool {
        isDeprioritized(peer, peers[peer], isObserved: isObserved, now: now)
    }

    private func isDeprioritized(_ peer: PeerEndpoint, _ entry: Entry?, isObserved: Bool, now: NIODeadline) -> Bool {
        if entry?.isDeprioritized(now: now) ?? false { return true }
        guard !isObserved, !(entry?.isProven ?? false), let until = deprioritizedAddresses[peer.address] else {
            return false
        }
        return now < until
    }

    /// Whether the peer has contributed to a verified body.
    func isProven(_ peer: PeerEndpoint) -> Bool { verifiedBodies(peer) > 0 }

    /// Verified bodies to which the peer has contributed.
    func verifiedBodies(_ peer: PeerEndpoint) -> Int { peers[peer]?.verifiedBodies ?? 0 }

    /// Whether a connection to a peer is open.
    func isConnected(_ peer: PeerEndpoint) -> Bool { (peers[peer]?.openConnections ?? 0) > 0 }

    /// Requests under way to a peer.
    func inUse(_ peer: PeerEndpoint) -> Int { peers[peer]?.inUse ?? 0 }

    /// A request to the peer has started.
    mutating func requestStarted(_ peer: PeerEndpoint, now: NIODeadline) { update(peer, now) { $0.inUse += 1 } }

    /// A request to the peer has ended.
    mutating func requestEnded(_ peer: PeerEndpoint, now: NIODeadline) {
        update(peer, now) { $0.inUse = max(0, $0.inUse - 1) }
    }

    /// Records the time to first byte of an accepted response.
    mutating func recordLatency(_ peer: PeerEndpoint, _ time: TimeAmount, now: NIODeadline) {
        update(peer, now) { entry in
            let milliseconds = Double(max(time.nanoseconds, 0)) / 1_000_000
            entry.latency = entry.latency.map { $0 * 0.8 + milliseconds * 0.2 } ?? milliseconds
        }
    }

    /// Records a failure: the peer is deprioritized for a while.
    ///
    /// - Parameter isObserved: whether the router knows the address first-hand. If not, and the peer has not proved itself,
    ///   other identities at this address, of which the same holds, are deprioritized with it.
    mutating func recordFailure(
        _ peer: PeerEndpoint, _ failure: Failure, isObserved: Bool = true, now: NIODeadline
    ) {
        update(peer, now) { entry in
            // A peer that has proved itself may have removed content whose announcement is still in the network.
            let isMild = failure == .busy || (failure == .absent && entry.verifiedBodies > 0)
            if !isMild, entry.lastFailure.map({ now - $0 >= Self.failureWindow }) ?? true {
                entry.failures = min(entry.failures + 1, 16)
                entry.lastFailure = now
            }
            let doublings = isMild ? 0 : max(0, entry.failures - 1)
            let time = min(
                Self.deprioritizedTime.lowerBound.nanoseconds << Int64(doublings),
                Self.deprioritizedTime.upperBound.nanoseconds)
            entry.deprioritizedUntil = max(entry.deprioritizedUntil ?? now, now + .nanoseconds(time))
        }
        guard failure != .busy, !isObserved, !isProven(peer), let until = peers[peer]?.deprioritizedUntil else {
            return
        }
        if deprioritizedAddresses.count >= Self.peerLimit {
            deprioritizedAddresses = deprioritizedAddresses.filter { now < $0.value }
            if deprioritizedAddresses.count >= Self.peerLimit { deprioritizedAddresses.removeAll() }
        }
        deprioritizedAddresses[peer.address] = max(deprioritizedAddresses[peer.address] ?? now, until)
    }

    /// Records that the peer sent a body to its end.
    ///
    /// - Parameter isVerified: whether the body was verified.
    mutating func recordCompletion(_ peer: PeerEndpoint, isVerified: Bool, now: NIODeadline) {
        update(peer, now) { entry in
            entry.failures = 0
            if isVerified { entry.verifiedBodies = min(entry.verifiedBodies + 1, 1_000_000) }
        }
    }

    /// Records that a body with bytes of the peer did not match its digest.
    ///
    /// - Parameter isProven: whether all bytes were this peer's. Only then it counts against the peer in general.
    mutating func recordMismatch(_ peer: PeerEndpoint, digest: Digest?, isProven: Bool, now: NIODeadline) {
        if let digest { exclude(peer, from: digest, until: now + Self.mismatchAge) }
        guard isProven else { return }
        update(peer, now) { entry in
            entry.verifiedBodies = 0
            entry.mismatches.append(now)
            if entry.mismatches.count > Self.exclusionThreshold { entry.mismatches.removeFirst() }
        }
    }

    /// Records that the peer sent too little of the content: it is not asked for the same again for ``stallAge``.
    mutating func recordStall(_ peer: PeerEndpoint, digest: Digest?, isObserved: Bool = true, now: NIODeadline) {
        recordFailure(peer, .slow, isObserved: isObserved, now: now)
        if let digest { exclude(peer, from: digest, until: now + Self.stallAge) }
    }

    private mutating func exclude(_ peer: PeerEndpoint, from digest: Digest, until: NIODeadline) {
        let exclusion = Exclusion(peer: peer, digest: digest)
        if let earlier = exclusions.updateValue(until, forKey: exclusion) {
            exclusions[exclusion] = max(earlier, until)
            return
        }
        exclusionOrder.append(exclusion)
        while exclusionOrder.count > Self.exclusionLimit, let oldest = exclusionOrder.popFirst() {
            exclusions[oldest] = nil
        }
    }

    // MARK: Dialling

    /// Whether a connection may be tried.
    enum DialPermit: Sendable, Hashable {
        /// Dial, and report the end with ``dialEnded(_:succeeded:now:)``.
        case dial
        /// Another dial to this peer, which has no connection, is under way: wait for its end.
        case wait
        /// A dial failed a moment ago.
        case unreachable
    }

    /// Whether to dial a peer.
    ///
    /// A peer with an open connection may be dialled at any time. One without is dialled once for all requests, and after
    /// a failure not before a pause is over.
    ///
    /// - Parameter isUrgent: whether it is the last candidate of a request; then the pause is at most
    ///   ``urgentDialPause``.
    mutating func mayDial(_ peer: PeerEndpoint, isUrgent: Bool, now: NIODeadline) -> DialPermit {
        var permit = DialPermit.dial
        update(peer, now) { entry in
            if entry.openConnections > 0 { return }
            if entry.isDialling {
                permit = .wait
                return
            }
            if let until = entry.unreachableUntil, now < until {
                let isOver = entry.lastFailedDial.map { now >= $0 + Self.urgentDialPause } ?? true
                guard isUrgent, isOver else {
                    permit = .unreachable
                    return
                }
            }
            entry.isDialling = true
        }
        return permit
    }

    /// A dial has ended. Counts an open connection when it succeeded.
    mutating func dialEnded(_ peer: PeerEndpoint, succeeded: Bool, now: NIODeadline) {
        update(peer, now) { entry in
            entry.isDialling = false
            if succeeded {
                entry.openConnections += 1
                entry.failedDials = 0
                entry.unreachableUntil = nil
                return
            }
            // A burst that fails together counts once.
            if let last = entry.lastFailedDial, now - last < .milliseconds(100), entry.unreachableUntil != nil {
                return
            }
            entry.failedDials = min(entry.failedDials + 1, 16)
            entry.lastFailedDial = now
            let factor = Int64(1) << Int64(min(entry.failedDials - 1, 10))
            let pause = min(
                Self.dialPause.lowerBound.nanoseconds * factor, Self.dialPause.upperBound.nanoseconds)
            entry.unreachableUntil = now + .nanoseconds(pause)
        }
    }

    /// A connection has closed.
    mutating func connectionClosed(_ peer: PeerEndpoint, now: NIODeadline) {
        update(peer, now) { $0.openConnections = max(0, $0.openConnections - 1) }
    }

    // MARK: Entries

    /// Peers with an entry.
    var count: Int { peers.count }

    private mutating func update(_ peer: PeerEndpoint, _ now: NIODeadline, _ change: (inout Entry) -> Void) {
        func apply(to entry: inout Entry) {
            entry.lastUsed = now
            change(&entry)
        }
        // In place: this is done several times for each request.
        if let index = peers.index(forKey: peer) { return apply(to: &peers.values[index]) }
        if peers.count >= Self.peerLimit { makeRoom() }
        var entry = Entry(lastUsed: now)
        apply(to: &entry)
        peers[peer] = entry
    }

    /// Drops the least recently used eighth of the peers, but none in use.
    private mutating func makeRoom() {
        let unused = peers.filter { $0.value.inUse == 0 && $0.value.openConnections == 0 && !$0.value.isDialling }
        for (peer, _) in unused.sorted(by: { $0.value.lastUsed < $1.value.lastUsed }).prefix(Self.peerLimit / 8) {
            peers[peer] = nil
        }
    }
}

/// The ``PeerStats`` shared by all event loops, with the requests that wait for a dial of another event
/// loop, and the peers that ask for credentials.
final class PeerDirectory: Sendable {
    private struct State {
        var stats = PeerStats()
        var waiting: [PeerEndpoint: [@Sendable (Bool) -> Void]] = [:]
        /// Peers that have asked for credentials. At most as many as ``PeerStats/peerLimit``; then it is emptied.
        var challengers: Set<PeerEndpoint> = []
    }

    private let state = NIOLockedValueBox(State())

    init() {}

    /// Reads or changes the statistics, under a lock of all event loops: the closure must be short.
    func withStats<Result: Sendable>(_ body: (inout PeerStats) -> Result) -> Result {
        state.withLockedValue { body(&$0.stats) }
    }

    /// Whether a peer has asked for credentials.
    func hasChallenged(_ peer: PeerEndpoint) -> Bool { state.withLockedValue { $0.challengers.contains(peer) } }

    /// A peer asks for credentials.
    func challenged(by peer: PeerEndpoint) {
        state.withLockedValue { state in
            if state.challengers.count >= PeerStats.peerLimit { state.challengers.removeAll() }
            state.challengers.insert(peer)
        }
    }

    /// Whether to dial a peer; for ``PeerStats/DialPermit/wait``, `whenDecided` is called once, on any thread, with whether
    /// the peer was reached.
    func mayDial(
        _ peer: PeerEndpoint, isUrgent: Bool, whenDecided: @escaping @Sendable (Bool) -> Void
    ) -> PeerStats.DialPermit {
        state.withLockedValue { state in
            let permit = state.stats.mayDial(peer, isUrgent: isUrgent, now: .now())
            if permit == .wait { state.waiting[peer, default: []].append(whenDecided) }
            return permit
        }
    }

    /// A dial has ended.
    ///
    /// - Returns: whether a connection to the peer is open, on any event loop.
    func dialEnded(_ peer: PeerEndpoint, succeeded: Bool) -> Bool {
        let (waiting, isAlive) = state.withLockedValue { state in
            state.stats.dialEnded(peer, succeeded: succeeded, now: .now())
            return (state.waiting.removeValue(forKey: peer) ?? [], state.stats.isConnected(peer))
        }
        for decided in waiting { decided(succeeded) }
        return isAlive
    }
}
