import DequeModule
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// What is known of the peers from dealing with them: how busy, how fast, whether they can be reached and believed.
///
/// A value type without I/O. It is bounded: the peers used longest ago are forgotten first, and blame expires.
struct PeerScoreboard: Sendable {
    /// Most peers remembered.
    static let peerLimit = 4096
    /// Most pairs of a peer and content it gave wrongly.
    static let blameLimit = 4096
    /// How long a peer is not asked again for content it gave wrongly, and how long an offence counts.
    static let blameAge: TimeAmount = .minutes(10)
    /// Offences after which a peer is asked for nothing any more, until they are too old.
    static let offenceLimit = 3
    /// How long a peer that was busy, slow or broke off is preferred less. Doubles each time that it is slow or breaks off
    /// again before it has given anything whole, up to the upper bound.
    static let penaltyAge: ClosedRange<TimeAmount> = .seconds(5)...(.minutes(5))
    /// What goes wrong with several transfers at once counts once.
    private static let sameTrouble: TimeAmount = .seconds(1)
    /// The first and the longest pause after a failed dial.
    static let dialPause: ClosedRange<TimeAmount> = .milliseconds(500)...(.seconds(15))
    /// A peer that nobody can replace is dialled again after this, even within the pause.
    static let urgentDialPause: TimeAmount = .seconds(1)

    /// What a peer is preferred less for.
    enum Penalty: Sendable, Hashable {
        case busy
        case slow
        case brokeOff
    }

    private struct Entry {
        var inUse = 0
        var liveConnections = 0
        var isDialling = false
        var failedDials = 0
        var lastFailedDial: NIODeadline?
        var downUntil: NIODeadline?
        var penaltyUntil: NIODeadline?
        /// How often in a row it was slow or broke off, and when it last was.
        var troubles = 0
        var lastTrouble: NIODeadline?
        var latency: Double?
        var offences: [NIODeadline] = []
        var lastUsed: NIODeadline

        func isPenalised(now: NIODeadline) -> Bool { penaltyUntil.map { now < $0 } ?? false }
    }

    private struct Blame: Hashable {
        var peer: PeerID
        var digest: Digest
    }

    private var peers: [PeerID: Entry] = [:]
    private var blamed: [Blame: NIODeadline] = [:]
    private var blameOrder: Deque<Blame> = []

    /// Whether a peer is asked, and how gladly.
    enum Standing: Sendable, Hashable {
        /// Lower is asked first.
        case eligible(rank: Int)
        /// It gave wrong bytes.
        case excluded
    }

    /// How a peer stands for one piece of content.
    func standing(of peer: PeerID, for digest: Digest?, now: NIODeadline) -> Standing {
        if let digest, let until = blamed[Blame(peer: peer, digest: digest)], now < until { return .excluded }
        guard let entry = peers[peer] else { return .eligible(rank: 0) }
        if entry.offences.count(where: { now - $0 < Self.blameAge }) >= Self.offenceLimit { return .excluded }
        // The least used first; among equals the faster.
        var rank = min(entry.inUse, 1000) * 1000 + Int(min(entry.latency ?? 0, 500))
        if entry.isPenalised(now: now) { rank += 10_000_000 }
        if entry.liveConnections == 0, let until = entry.downUntil, now < until { rank += 100_000_000 }
        return .eligible(rank: rank)
    }

    /// Whether a peer is preferred less for what it did a while ago.
    func isPenalised(_ peer: PeerID, now: NIODeadline) -> Bool {
        peers[peer]?.isPenalised(now: now) ?? false
    }

    /// Whether there is a connection to a peer.
    func isConnected(_ peer: PeerID) -> Bool { (peers[peer]?.liveConnections ?? 0) > 0 }

    /// Requests under way to a peer.
    func inUse(_ peer: PeerID) -> Int { peers[peer]?.inUse ?? 0 }

    /// A request to the peer begins.
    mutating func began(_ peer: PeerID, now: NIODeadline) { update(peer, now) { $0.inUse += 1 } }

    /// A request to the peer has ended.
    mutating func ended(_ peer: PeerID, now: NIODeadline) { update(peer, now) { $0.inUse = max(0, $0.inUse - 1) } }

    /// The peer's first byte took this long.
    mutating func answered(_ peer: PeerID, after time: TimeAmount, now: NIODeadline) {
        update(peer, now) { entry in
            let milliseconds = Double(max(time.nanoseconds, 0)) / 1_000_000
            entry.latency = entry.latency.map { $0 * 0.8 + milliseconds * 0.2 } ?? milliseconds
        }
    }

    /// The peer shall be preferred less for a while.
    mutating func penalise(_ peer: PeerID, _ penalty: Penalty, now: NIODeadline) {
        update(peer, now) { entry in
            if penalty != .busy, entry.lastTrouble.map({ now - $0 >= Self.sameTrouble }) ?? true {
                entry.troubles = min(entry.troubles + 1, 16)
                entry.lastTrouble = now
            }
            let doublings = penalty == .busy ? 0 : max(0, entry.troubles - 1)
            let age = min(
                Self.penaltyAge.lowerBound.nanoseconds << Int64(doublings), Self.penaltyAge.upperBound.nanoseconds)
            entry.penaltyUntil = max(entry.penaltyUntil ?? now, now + .nanoseconds(age))
        }
    }

    /// The peer has given what it was asked for to the end.
    mutating func completed(_ peer: PeerID, now: NIODeadline) {
        update(peer, now) { $0.troubles = 0 }
    }

    /// The peer gave, or helped to give, wrong bytes for `digest`.
    ///
    /// - Parameter alone: whether nobody else can have been it. Only then does it count against the peer in general.
    mutating func blame(_ peer: PeerID, for digest: Digest?, alone: Bool, now: NIODeadline) {
        if let digest {
            let blame = Blame(peer: peer, digest: digest)
            if blamed.updateValue(now + Self.blameAge, forKey: blame) == nil { blameOrder.append(blame) }
            while blameOrder.count > Self.blameLimit, let oldest = blameOrder.popFirst() {
                blamed[oldest] = nil
            }
        }
        guard alone else { return }
        update(peer, now) { entry in
            entry.offences.append(now)
            if entry.offences.count > Self.offenceLimit { entry.offences.removeFirst() }
        }
    }

    // MARK: Dialling

    /// Whether a connection may be tried.
    enum DialPermit: Sendable, Hashable {
        /// Yes. Tell how it ended with ``dialEnded(_:succeeded:now:)``.
        case go
        /// Another dial to a peer without any connection is under way: wait for how it ends.
        case wait
        /// It was down a moment ago.
        case down
    }

    /// Asks to dial a peer.
    ///
    /// A peer to which a connection is open may be dialled at will. One without is dialled once, for everyone who
    /// wants it, and after a failure not again before a pause is over.
    ///
    /// - Parameter urgent: whether there is nobody else to ask; then the pause is a short one.
    mutating func mayDial(_ peer: PeerID, urgent: Bool, now: NIODeadline) -> DialPermit {
        var permit = DialPermit.go
        update(peer, now) { entry in
            if entry.liveConnections > 0 { return }
            if entry.isDialling {
                permit = .wait
                return
            }
            if let until = entry.downUntil, now < until {
                let isOver = entry.lastFailedDial.map { now >= $0 + Self.urgentDialPause } ?? true
                guard urgent, isOver else {
                    permit = .down
                    return
                }
            }
            entry.isDialling = true
        }
        return permit
    }

    /// A dial has ended. Counts a live connection when it succeeded.
    mutating func dialEnded(_ peer: PeerID, succeeded: Bool, now: NIODeadline) {
        update(peer, now) { entry in
            entry.isDialling = false
            if succeeded {
                entry.liveConnections += 1
                entry.failedDials = 0
                entry.downUntil = nil
                return
            }
            // A burst that fails together counts once.
            if let last = entry.lastFailedDial, now - last < .milliseconds(100), entry.downUntil != nil { return }
            entry.failedDials = min(entry.failedDials + 1, 16)
            entry.lastFailedDial = now
            let factor = Int64(1) << Int64(min(entry.failedDials - 1, 10))
            let pause = min(
                Self.dialPause.lowerBound.nanoseconds * factor, Self.dialPause.upperBound.nanoseconds)
            entry.downUntil = now + .nanoseconds(pause)
        }
    }

    /// A dial was given up before its end was known: it says nothing about the peer.
    mutating func dialAbandoned(_ peer: PeerID, now: NIODeadline) {
        update(peer, now) { $0.isDialling = false }
    }

    /// A connection has closed.
    mutating func connectionClosed(_ peer: PeerID, now: NIODeadline) {
        update(peer, now) { $0.liveConnections = max(0, $0.liveConnections - 1) }
    }

    // MARK: For metrics

    /// Peers remembered.
    var count: Int { peers.count }
    /// Peers that cannot be reached now.
    func downCount(now: NIODeadline) -> Int {
        peers.values.count { entry in
            entry.liveConnections == 0 && (entry.downUntil.map { now < $0 } ?? false)
        }
    }

    private mutating func update(_ peer: PeerID, _ now: NIODeadline, _ change: (inout Entry) -> Void) {
        if peers[peer] == nil, peers.count >= Self.peerLimit { forgetSome() }
        var entry = peers[peer] ?? Entry(lastUsed: now)
        entry.lastUsed = now
        change(&entry)
        peers[peer] = entry
    }

    /// Forgets the eighth of the peers that was used longest ago, but none that is in use.
    private mutating func forgetSome() {
        let unused = peers.filter { $0.value.inUse == 0 && $0.value.liveConnections == 0 && !$0.value.isDialling }
        for (peer, _) in unused.sorted(by: { $0.value.lastUsed < $1.value.lastUsed }).prefix(Self.peerLimit / 8) {
            peers[peer] = nil
        }
    }
}
