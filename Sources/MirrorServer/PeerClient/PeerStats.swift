import DequeModule
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// What past requests say of each peer: its load, latency, reachability, failures and mismatches.
///
/// A value type without I/O. It is limited: the least recently used peers are dropped first, and mismatches expire.
struct PeerStats: Sendable {
    /// Most peers.
    static let peerLimit = 4096
    /// Most pairs of a peer and content of which it sent wrong bytes.
    static let mismatchLimit = 4096
    /// How long a mismatch counts, for the content and for the peer.
    static let mismatchAge: TimeAmount = .minutes(10)
    /// Proven mismatches within ``mismatchAge`` from which a peer is excluded from all content.
    static let exclusionThreshold = 3
    /// How long a peer is deprioritized after a failure. Doubles with each time it is slow or truncates a body again before
    /// it has completed one, up to the upper bound.
    static let deprioritizedTime: ClosedRange<TimeAmount> = .seconds(5)...(.minutes(5))
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
    }

    private struct Entry {
        var inUse = 0
        var openConnections = 0
        var isDialling = false
        var failedDials = 0
        var lastFailedDial: NIODeadline?
        var unreachableUntil: NIODeadline?
        var deprioritizedUntil: NIODeadline?
        /// How often in a row it was slow or truncated a body, and when it last was.
        var failures = 0
        var lastFailure: NIODeadline?
        /// Milliseconds to the first byte, smoothed.
        var latency: Double?
        /// When its proven mismatches were.
        var mismatches: [NIODeadline] = []
        var lastUsed: NIODeadline

        func isDeprioritized(now: NIODeadline) -> Bool { deprioritizedUntil.map { now < $0 } ?? false }
    }

    /// Content of which a peer sent wrong bytes.
    private struct Mismatch: Hashable {
        var peer: PeerID
        var digest: Digest
    }

    private var peers: [PeerID: Entry] = [:]
    /// Until when a mismatch counts.
    private var mismatches: [Mismatch: NIODeadline] = [:]
    private var mismatchOrder: Deque<Mismatch> = []

    /// Whether a peer is asked for one piece of content.
    enum Eligibility: Sendable, Hashable {
        /// The lowest rank is asked first.
        case eligible(rank: Int)
        /// It sent wrong bytes.
        case excluded
    }

    /// Whether a peer is asked for content, and its rank among those that are.
    func eligibility(of peer: PeerID, for digest: Digest?, now: NIODeadline) -> Eligibility {
        if let digest, let until = mismatches[Mismatch(peer: peer, digest: digest)], now < until { return .excluded }
        guard let entry = peers[peer] else { return .eligible(rank: 0) }
        if entry.mismatches.count(where: { now - $0 < Self.mismatchAge }) >= Self.exclusionThreshold {
            return .excluded
        }
        // The least used first; among equals the fastest.
        var rank = min(entry.inUse, 1000) * 1000 + Int(min(entry.latency ?? 0, 500))
        if entry.isDeprioritized(now: now) { rank += 10_000_000 }
        if entry.openConnections == 0, let until = entry.unreachableUntil, now < until { rank += 100_000_000 }
        return .eligible(rank: rank)
    }

    /// Whether a peer is deprioritized for a recent failure.
    func isDeprioritized(_ peer: PeerID, now: NIODeadline) -> Bool {
        peers[peer]?.isDeprioritized(now: now) ?? false
    }

    /// Whether a connection to a peer is open.
    func isConnected(_ peer: PeerID) -> Bool { (peers[peer]?.openConnections ?? 0) > 0 }

    /// Requests under way to a peer.
    func inUse(_ peer: PeerID) -> Int { peers[peer]?.inUse ?? 0 }

    /// A request to the peer has started.
    mutating func requestStarted(_ peer: PeerID, now: NIODeadline) { update(peer, now) { $0.inUse += 1 } }

    /// A request to the peer has ended.
    mutating func requestEnded(_ peer: PeerID, now: NIODeadline) {
        update(peer, now) { $0.inUse = max(0, $0.inUse - 1) }
    }

    /// Records the time to first byte of an accepted response.
    mutating func recordLatency(_ peer: PeerID, _ time: TimeAmount, now: NIODeadline) {
        update(peer, now) { entry in
            let milliseconds = Double(max(time.nanoseconds, 0)) / 1_000_000
            entry.latency = entry.latency.map { $0 * 0.8 + milliseconds * 0.2 } ?? milliseconds
        }
    }

    /// Records a failure: the peer is deprioritized for a while.
    mutating func recordFailure(_ peer: PeerID, _ failure: Failure, now: NIODeadline) {
        update(peer, now) { entry in
            if failure != .busy, entry.lastFailure.map({ now - $0 >= Self.failureWindow }) ?? true {
                entry.failures = min(entry.failures + 1, 16)
                entry.lastFailure = now
            }
            let doublings = failure == .busy ? 0 : max(0, entry.failures - 1)
            let time = min(
                Self.deprioritizedTime.lowerBound.nanoseconds << Int64(doublings),
                Self.deprioritizedTime.upperBound.nanoseconds)
            entry.deprioritizedUntil = max(entry.deprioritizedUntil ?? now, now + .nanoseconds(time))
        }
    }

    /// Records that the peer sent a body to its end.
    mutating func recordCompletion(_ peer: PeerID, now: NIODeadline) {
        update(peer, now) { $0.failures = 0 }
    }

    /// Records that a body with bytes of the peer did not match its digest.
    ///
    /// - Parameter isProven: whether all bytes were this peer's. Only then it counts against the peer in general.
    mutating func recordMismatch(_ peer: PeerID, digest: Digest?, isProven: Bool, now: NIODeadline) {
        if let digest {
            let mismatch = Mismatch(peer: peer, digest: digest)
            if mismatches.updateValue(now + Self.mismatchAge, forKey: mismatch) == nil {
                mismatchOrder.append(mismatch)
            }
            while mismatchOrder.count > Self.mismatchLimit, let oldest = mismatchOrder.popFirst() {
                mismatches[oldest] = nil
            }
        }
        guard isProven else { return }
        update(peer, now) { entry in
            entry.mismatches.append(now)
            if entry.mismatches.count > Self.exclusionThreshold { entry.mismatches.removeFirst() }
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
    mutating func mayDial(_ peer: PeerID, isUrgent: Bool, now: NIODeadline) -> DialPermit {
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
    mutating func dialEnded(_ peer: PeerID, succeeded: Bool, now: NIODeadline) {
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
    mutating func connectionClosed(_ peer: PeerID, now: NIODeadline) {
        update(peer, now) { $0.openConnections = max(0, $0.openConnections - 1) }
    }

    // MARK: Entries

    /// Peers with an entry.
    var count: Int { peers.count }

    private mutating func update(_ peer: PeerID, _ now: NIODeadline, _ change: (inout Entry) -> Void) {
        if peers[peer] == nil, peers.count >= Self.peerLimit { makeRoom() }
        var entry = peers[peer] ?? Entry(lastUsed: now)
        entry.lastUsed = now
        change(&entry)
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

/// The ``PeerStats`` shared by all event loops, with what else they share of a peer: the address that was reached last, and
/// who waits for a dial of another event loop.
final class PeerDirectory: Sendable {
    private struct State {
        var stats = PeerStats()
        var waiting: [PeerID: [@Sendable (Bool) -> Void]] = [:]
        var addresses: [PeerID: IPAddress] = [:]
    }

    private let state = NIOLockedValueBox(State())

    init() {}

    /// Reads or changes the statistics, under a lock of all event loops: the closure must be short.
    func withStats<Result: Sendable>(_ body: (inout PeerStats) -> Result) -> Result {
        state.withLockedValue { body(&$0.stats) }
    }

    /// Whether to dial a peer; for ``PeerStats/DialPermit/wait``, `whenDecided` is called once, on any thread, with whether
    /// the peer was reached.
    func mayDial(
        _ peer: PeerID, isUrgent: Bool, whenDecided: @escaping @Sendable (Bool) -> Void
    ) -> PeerStats.DialPermit {
        state.withLockedValue { state in
            let permit = state.stats.mayDial(peer, isUrgent: isUrgent, now: .now())
            if permit == .wait { state.waiting[peer, default: []].append(whenDecided) }
            return permit
        }
    }

    /// A dial has ended.
    ///
    /// - Parameter address: the address that was reached; nil if none was.
    /// - Returns: whether a connection to the peer is open, on any event loop.
    func dialEnded(_ peer: PeerID, reached address: IPAddress?) -> Bool {
        let (waiting, isAlive) = state.withLockedValue { state in
            state.stats.dialEnded(peer, succeeded: address != nil, now: .now())
            if let address {
                // Limited as the statistics are, by emptying it.
                if state.addresses.count >= PeerStats.peerLimit { state.addresses.removeAll() }
                state.addresses[peer] = address
            }
            return (state.waiting.removeValue(forKey: peer) ?? [], state.stats.isConnected(peer))
        }
        for decided in waiting { decided(address != nil) }
        return isAlive
    }

    /// The addresses of a peer, the one that was reached last first.
    func ordered(_ peer: Peer) -> [IPAddress] {
        guard peer.addresses.count > 1, let best = state.withLockedValue({ $0.addresses[peer.id] }),
            let index = peer.addresses.firstIndex(of: best)
        else { return peer.addresses }
        var addresses = peer.addresses
        addresses.remove(at: index)
        addresses.insert(best, at: 0)
        return addresses
    }
}
