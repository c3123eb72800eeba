import NIOCore

/// Decides which peers are asked for one piece of content, and when.
///
/// Peers come in while the lookup runs. The first is asked at once, a further one when those under way are slower than
/// expected or one has failed; the first good answer wins and the others are cancelled. The race is given up only when
/// nothing is under way, nobody is left to ask, and the lookup has ended or its time is over: an attempt under way is
/// always waited for, within its own deadlines and the race's.
///
/// A value type without I/O: tell it what happened, do what it answers. `Candidate` is what identifies a peer.
struct RaceMachine<Candidate: Hashable & Sendable>: Sendable {
    /// The bounds of one race.
    struct Limits: Sendable {
        /// Most attempts that reach a peer. Attempts that end before a connection exists cost little and do not count,
        /// but four times as many is the most of all.
        var attempts: Int
        /// When to stop waiting for a first peer; nil while the lookup has not begun, see
        /// ``RaceMachine/lookupBegan(deadline:)``.
        var lookupDeadline: NIODeadline?
        /// When to stop altogether; nil leaves it to the deadlines of the attempts.
        var deadline: NIODeadline?
        /// How long a peer that said it is busy is left alone before it is asked once more.
        var busyPause: TimeAmount = .milliseconds(50)
        /// How long a lookup that goes on may bring somebody better than a peer that is asked reluctantly.
        var reluctantPause: TimeAmount = .milliseconds(50)
        /// How long it may bring somebody better than a last resort.
        var lastResortPause: TimeAmount = .milliseconds(250)
    }

    /// Names an attempt within its race.
    typealias AttemptID = Int

    /// How an attempt ended without a good answer.
    enum Failure: Sendable, Hashable {
        /// No connection came about, or the peer is known to be down.
        case unreached
        /// The peer has too much to do, or the connection was lost before an answer: worth asking once more.
        case busy
        /// The peer does not have it, gave no acceptable answer, or broke off.
        case refused
    }

    /// Why the race was given up.
    enum Defeat: Sendable, Hashable {
        /// The lookup found nobody.
        case noPeers
        /// Everybody found was asked in vain.
        case exhausted
        /// The deadline passed.
        case deadline
    }

    /// What is to be done.
    enum Action: Sendable, Hashable {
        /// Ask this peer.
        case start(AttemptID, Candidate)
        /// Stop this attempt; nothing more is to be reported of it.
        case cancel(AttemptID)
        /// This attempt's answer is the one to use. The race is over.
        case win(AttemptID, Candidate)
        /// There is no answer. The race is over.
        case giveUp(Defeat)
    }

    /// How gladly a peer is asked.
    enum Willingness: Sendable, Hashable {
        case gladly
        /// Not first, if the lookup brings somebody else within a moment; it races as others do.
        case reluctantly
        /// Only when nobody else is under way or waiting, and the lookup has ended or has brought nobody better for a
        /// while. Such a peer may be the quickest to answer, and is not to be believed for it.
        case asALastResort
    }

    private struct Waiting {
        var candidate: Candidate
        var notBefore: NIODeadline
        var isRetry = false
        var willingness = Willingness.gladly

        var isLastResort: Bool { willingness == .asALastResort }
    }

    private struct Running {
        var id: AttemptID
        var asked: Waiting
    }

    private var limits: Limits
    /// Lower is asked first.
    private let rank: @Sendable (Candidate) -> Int
    private var waiting: [Waiting] = []
    private var seen: Set<Candidate> = []
    private var running: [Running] = []
    private var nextID = 0
    private var reached = 0
    private var lookupEnded = false
    /// When those under way have taken long enough to ask somebody else too.
    private var hedgeAt: NIODeadline?

    /// Whether peers are known that were not asked yet.
    var hasWaiting: Bool { !waiting.isEmpty }
    /// Whether the race has been won, lost or cancelled.
    private(set) var isOver = false
    /// Attempts started so far.
    var attempts: Int { nextID }
    /// Attempts started while another one was under way.
    private(set) var hedges = 0

    /// Makes a race without peers.
    ///
    /// - Parameter rank: how much a peer is preferred at the moment it is to be chosen, lower first; equals in the
    ///   order they were found.
    init(limits: Limits, rank: @escaping @Sendable (Candidate) -> Int) {
        self.limits = limits
        self.rank = rank
    }

    /// When ``timePassed(now:hedgeDelay:)`` is to be called next, if nothing else happens before.
    var nextDeadline: NIODeadline? {
        guard !isOver else { return nil }
        var deadlines: [NIODeadline] = []
        if let deadline = limits.deadline { deadlines.append(deadline) }
        if running.isEmpty {
            if let earliest = earliestStart { deadlines.append(earliest) }
            if !lookupEnded, waiting.isEmpty, let deadline = limits.lookupDeadline { deadlines.append(deadline) }
        } else if mayStart, let hedgeAt, let earliest = earliestStart {
            deadlines.append(max(hedgeAt, earliest))
        }
        return deadlines.min()
    }

    /// A peer was found. One that was seen before changes nothing.
    mutating func found(_ candidate: Candidate, now: NIODeadline, hedgeDelay: (Int) -> TimeAmount) -> [Action] {
        found([candidate], now: now, hedgeDelay: hedgeDelay)
    }

    /// Peers were found together: the preferred one among them is asked first.
    mutating func found(
        _ candidates: [Candidate], now: NIODeadline, hedgeDelay: (Int) -> TimeAmount,
        willingness: (Candidate) -> Willingness = { _ in .gladly }
    ) -> [Action] {
        guard !isOver else { return [] }
        let new = candidates.filter { seen.insert($0).inserted }
        guard !new.isEmpty else { return [] }
        waiting += new.map { candidate in
            let willingness = willingness(candidate)
            let pause: TimeAmount =
                switch willingness {
                case _ where lookupEnded: .zero
                case .gladly: .zero
                case .reluctantly: limits.reluctantPause
                case .asALastResort: limits.lastResortPause
                }
            return Waiting(candidate: candidate, notBefore: now + pause, willingness: willingness)
        }
        return advance(now: now, hedgeDelay: hedgeDelay)
    }

    /// The lookup, which was queued behind others, has begun.
    mutating func lookupBegan(deadline: NIODeadline) {
        if limits.lookupDeadline == nil { limits.lookupDeadline = deadline }
    }

    /// No more peers will be found.
    mutating func lookupFinished(now: NIODeadline, hedgeDelay: (Int) -> TimeAmount) -> [Action] {
        guard !isOver else { return [] }
        lookupEnded = true
        // Nobody better comes any more.
        for index in waiting.indices where !waiting[index].isRetry { waiting[index].notBefore = now }
        return advance(now: now, hedgeDelay: hedgeDelay)
    }

    /// Time passed; call it at ``nextDeadline``.
    mutating func timePassed(now: NIODeadline, hedgeDelay: (Int) -> TimeAmount) -> [Action] {
        guard !isOver else { return [] }
        return advance(now: now, hedgeDelay: hedgeDelay)
    }

    /// An attempt got a good answer.
    mutating func answered(_ id: AttemptID) -> [Action] {
        guard !isOver, let index = running.firstIndex(where: { $0.id == id }) else { return [] }
        let winner = running.remove(at: index)
        return [.win(id, winner.asked.candidate)] + end()
    }

    /// An attempt ended without a good answer.
    mutating func failed(
        _ id: AttemptID, _ failure: Failure, now: NIODeadline, hedgeDelay: (Int) -> TimeAmount
    ) -> [Action] {
        guard !isOver, let index = running.firstIndex(where: { $0.id == id }) else { return [] }
        var asked = running.remove(at: index).asked
        switch failure {
        case .unreached:
            reached -= 1
        case .busy where !asked.isRetry:
            reached -= 1
            (asked.notBefore, asked.isRetry) = (now + limits.busyPause, true)
            waiting.append(asked)
        case .busy, .refused:
            break
        }
        // A failure says as much as slowness: somebody else is asked at once.
        hedgeAt = now
        return advance(now: now, hedgeDelay: hedgeDelay)
    }

    /// Ends the race, for example because the client has gone.
    mutating func cancel() -> [Action] {
        guard !isOver else { return [] }
        return end()
    }

    private var mayStart: Bool { reached < limits.attempts && nextID < limits.attempts * 4 }

    private mutating func advance(now: NIODeadline, hedgeDelay: (Int) -> TimeAmount) -> [Action] {
        if let deadline = limits.deadline, now >= deadline {
            return end() + [.giveUp(.deadline)]
        }
        var actions: [Action] = []
        while mayStart, running.isEmpty || (hedgeAt.map { now >= $0 } ?? false), let next = takeNext(now: now) {
            if !running.isEmpty { hedges += 1 }
            let attempt = Running(id: nextID, asked: next)
            nextID += 1
            reached += 1
            running.append(attempt)
            hedgeAt = now + hedgeDelay(running.count)
            actions.append(.start(attempt.id, next.candidate))
        }
        guard running.isEmpty else { return actions }
        if !mayStart { return actions + end() + [.giveUp(.exhausted)] }
        let isLate = limits.lookupDeadline.map { now >= $0 } ?? false
        guard waiting.isEmpty, lookupEnded || isLate else { return actions }
        return actions + end() + [.giveUp(seen.isEmpty ? .noPeers : .exhausted)]
    }

    /// Whether it is the turn of those who are nobody's first choice. They neither race with others nor go before those
    /// who will be there in a moment.
    private var isDownToLastResorts: Bool { running.isEmpty && waiting.allSatisfy(\.isLastResort) }

    /// When somebody of those waiting may be asked.
    private var earliestStart: NIODeadline? {
        let includesAll = isDownToLastResorts
        return waiting.lazy.filter { includesAll || !$0.isLastResort }.map(\.notBefore).min()
    }

    /// The preferred peer among those that may be asked now.
    private mutating func takeNext(now: NIODeadline) -> Waiting? {
        var best: (index: Int, rank: Int)?
        let includesAll = isDownToLastResorts
        for (index, entry) in waiting.enumerated() where entry.notBefore <= now && (includesAll || !entry.isLastResort)
        {
            let rank = rank(entry.candidate)
            if best.map({ rank < $0.rank }) ?? true { best = (index, rank) }
        }
        return best.map { waiting.remove(at: $0.index) }
    }

    private mutating func end() -> [Action] {
        isOver = true
        defer { running.removeAll() }
        waiting.removeAll()
        return running.map { .cancel($0.id) }
    }
}
