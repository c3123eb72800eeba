import NIOCore

/// Decides which peers are asked for one piece of content, and when.
///
/// Candidates are added while the lookup runs. The first is asked at once, a further one when the attempts under way are
/// slower than expected or one has failed (hedging); the first acceptable response wins and the other attempts are
/// cancelled. The race fails only when no attempt is under way, no candidate is left, and the lookup has ended or timed
/// out: an attempt under way is always waited for, within its own deadlines and the race's.
///
/// A value type without I/O: report events, carry out the returned actions. `Candidate` identifies a peer.
struct RaceMachine<Candidate: Hashable & Sendable>: Sendable {
    struct Limits: Sendable {
        /// Most attempts that reach a peer. Attempts that end before a connection exists cost little and do not count,
        /// but four times as many is the most of all.
        var attempts: Int
        /// When to stop waiting for a candidate; nil while the lookup has not started, see
        /// ``RaceMachine/lookupStarted(deadline:)``.
        var lookupDeadline: NIODeadline?
        /// When to stop altogether; nil leaves it to the deadlines of the attempts.
        var deadline: NIODeadline?
        /// Pause before a busy peer is asked once more.
        var busyDelay: TimeAmount = .milliseconds(50)
        /// Grace period before a deprioritized peer is tried while the lookup still runs.
        var deprioritizedDelay: TimeAmount = .milliseconds(50)
        /// Grace period before a last resort is tried while the lookup still runs.
        var lastResortDelay: TimeAmount = .milliseconds(250)
    }

    /// Identifies an attempt within its race.
    typealias AttemptID = Int

    /// Why an attempt failed.
    enum AttemptFailure: Sendable, Hashable {
        /// No connection could be established, or the peer is known to be unreachable.
        case unreachable
        /// The peer is overloaded, or closed the connection before a response: it is asked once more.
        case busy
        /// The peer does not have the content, its response is not acceptable, or it timed out.
        case refused
    }

    /// Why the race failed.
    enum FailureReason: Sendable, Hashable {
        /// The lookup found no candidates.
        case noPeers
        /// All candidates failed.
        case exhausted
        /// The deadline passed.
        case deadline
    }

    /// What the owner carries out.
    enum Action: Sendable, Hashable {
        /// Send a request to this candidate.
        case start(AttemptID, Candidate)
        /// Cancel this attempt; no event of it is to be reported any more.
        case cancel(AttemptID)
        /// Use the response of this attempt. The race is over.
        case raceWon(AttemptID, Candidate)
        /// There is no response. The race is over.
        case fail(FailureReason)
    }

    /// The priority class of a candidate.
    enum Preference: Sendable, Hashable {
        case normal
        /// Tried after ``Limits/deprioritizedDelay`` if the lookup finds no other until then; it races as others do.
        case deprioritized
        /// Tried only when no other attempt is under way or waiting, and the lookup has ended or has found no other for
        /// ``Limits/lastResortDelay``. The fastest response of such a peer says nothing about its body.
        case lastResort
    }

    private struct Waiting {
        var candidate: Candidate
        var notBefore: NIODeadline
        var isRetry = false
        var preference = Preference.normal

        var isLastResort: Bool { preference == .lastResort }
    }

    private struct Running {
        var id: AttemptID
        var entry: Waiting
    }

    private var limits: Limits
    /// The lowest rank is tried first.
    private let rank: @Sendable (Candidate) -> Int
    private var waiting: [Waiting] = []
    private var seen: Set<Candidate> = []
    private var running: [Running] = []
    private var nextID = 0
    /// Attempts that count towards the limit.
    private var countedAttempts = 0
    private var hasLookupEnded = false
    /// When the attempts under way have taken long enough for a further one.
    private var hedgeAt: NIODeadline?

    /// Whether candidates wait for an attempt.
    var hasWaiting: Bool { !waiting.isEmpty }
    /// Whether the race was won, has failed or was cancelled.
    private(set) var isOver = false

    /// Makes a race without candidates.
    ///
    /// - Parameter rank: the rank of a candidate at the moment of the choice, lower first; equal ranks in the order in
    ///   which they were found.
    init(limits: Limits, rank: @escaping @Sendable (Candidate) -> Int) {
        self.limits = limits
        self.rank = rank
    }

    /// When ``timePassed(now:hedgeDelay:)`` is to be called next, if no other event comes before.
    var nextDeadline: NIODeadline? {
        guard !isOver else { return nil }
        var deadlines: [NIODeadline] = []
        if let deadline = limits.deadline { deadlines.append(deadline) }
        if running.isEmpty {
            if let earliest = earliestStart { deadlines.append(earliest) }
            if !hasLookupEnded, waiting.isEmpty, let deadline = limits.lookupDeadline { deadlines.append(deadline) }
        } else if mayStart, let hedgeAt, let earliest = earliestStart {
            deadlines.append(max(hedgeAt, earliest))
        }
        return deadlines.min()
    }

    /// Candidates were found together: the preferred one among them is tried first. One that was seen before is ignored.
    mutating func found(
        _ candidates: [Candidate], now: NIODeadline, hedgeDelay: (Int) -> TimeAmount,
        preference: (Candidate) -> Preference = { _ in .normal }
    ) -> [Action] {
        guard !isOver else { return [] }
        let new = candidates.filter { seen.insert($0).inserted }
        guard !new.isEmpty else { return [] }
        waiting += new.map { candidate in
            let preference = preference(candidate)
            let delay: TimeAmount =
                switch preference {
                case _ where hasLookupEnded: .zero
                case .normal: .zero
                case .deprioritized: limits.deprioritizedDelay
                case .lastResort: limits.lastResortDelay
                }
            return Waiting(candidate: candidate, notBefore: now + delay, preference: preference)
        }
        return advance(now: now, hedgeDelay: hedgeDelay)
    }

    /// The lookup, which may have been queued behind others, has started.
    mutating func lookupStarted(deadline: NIODeadline) {
        if limits.lookupDeadline == nil { limits.lookupDeadline = deadline }
    }

    /// The lookup has ended: no more candidates will be found.
    mutating func lookupEnded(now: NIODeadline, hedgeDelay: (Int) -> TimeAmount) -> [Action] {
        guard !isOver else { return [] }
        hasLookupEnded = true
        // Grace periods have lost their purpose.
        for index in waiting.indices where !waiting[index].isRetry { waiting[index].notBefore = now }
        return advance(now: now, hedgeDelay: hedgeDelay)
    }

    /// Time passed; call it at ``nextDeadline``.
    mutating func timePassed(now: NIODeadline, hedgeDelay: (Int) -> TimeAmount) -> [Action] {
        guard !isOver else { return [] }
        return advance(now: now, hedgeDelay: hedgeDelay)
    }

    /// An attempt received an acceptable response.
    mutating func answered(_ id: AttemptID) -> [Action] {
        guard !isOver, let index = running.firstIndex(where: { $0.id == id }) else { return [] }
        let winner = running.remove(at: index)
        return end() + [.raceWon(id, winner.entry.candidate)]
    }

    /// An attempt failed.
    mutating func failed(
        _ id: AttemptID, _ failure: AttemptFailure, now: NIODeadline, hedgeDelay: (Int) -> TimeAmount
    ) -> [Action] {
        guard !isOver, let index = running.firstIndex(where: { $0.id == id }) else { return [] }
        var entry = running.remove(at: index).entry
        switch failure {
        case .unreachable:
            countedAttempts -= 1
        case .busy where !entry.isRetry:
            countedAttempts -= 1
            (entry.notBefore, entry.isRetry) = (now + limits.busyDelay, true)
            waiting.append(entry)
        case .busy, .refused:
            break
        }
        // A failure says as much as slowness: the next candidate is tried at once.
        hedgeAt = now
        return advance(now: now, hedgeDelay: hedgeDelay)
    }

    /// Ends the race, for example because the client has gone.
    mutating func cancel() -> [Action] {
        guard !isOver else { return [] }
        return end()
    }

    private var mayStart: Bool { countedAttempts < limits.attempts && nextID < limits.attempts * 4 }

    private mutating func advance(now: NIODeadline, hedgeDelay: (Int) -> TimeAmount) -> [Action] {
        if let deadline = limits.deadline, now >= deadline {
            return end() + [.fail(.deadline)]
        }
        var actions: [Action] = []
        while mayStart, running.isEmpty || (hedgeAt.map { now >= $0 } ?? false), let next = takeNext(now: now) {
            let attempt = Running(id: nextID, entry: next)
            nextID += 1
            countedAttempts += 1
            running.append(attempt)
            hedgeAt = now + hedgeDelay(running.count)
            actions.append(.start(attempt.id, next.candidate))
        }
        guard running.isEmpty else { return actions }
        if !mayStart { return actions + end() + [.fail(.exhausted)] }
        let isLate = limits.lookupDeadline.map { now >= $0 } ?? false
        guard waiting.isEmpty, hasLookupEnded || isLate else { return actions }
        return actions + end() + [.fail(seen.isEmpty ? .noPeers : .exhausted)]
    }

    /// Whether only last resorts are left. They neither race with other candidates nor precede those that wait for a
    /// retry.
    private var isDownToLastResorts: Bool { running.isEmpty && waiting.allSatisfy(\.isLastResort) }

    /// When the first of those waiting may be tried.
    private var earliestStart: NIODeadline? {
        let includesAll = isDownToLastResorts
        return waiting.lazy.filter { includesAll || !$0.isLastResort }.map(\.notBefore).min()
    }

    /// The preferred candidate among those that may be tried now.
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
