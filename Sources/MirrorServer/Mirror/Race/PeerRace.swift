import Logging
import Metrics
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// Receives the outcome of a ``PeerRace``, on its event loop. Not called any more after ``PeerRace/stop()``.
protocol PeerRaceDelegate: AnyObject {
    /// A peer's response is accepted. Its body is the delegate's, and ``PeerRace/requestEnded(_:)`` its duty.
    func raceWon(
        by request: PeerRequest, _ head: PeerResponseHead, _ acceptance: TransferPlan.Acceptance)
    /// No peer gave an acceptable response.
    ///
    /// - Parameter isCachedLookup: whether the candidates came from an earlier lookup, which is invalidated now.
    func raceFailed(_ reason: RaceMachine<PeerEndpoint>.FailureReason, isCachedLookup: Bool)
    /// A peer states another length of the content than that of the body under way.
    func raceSawLengthMismatch()
}

/// Finds the peer that starts or continues a transfer: looks up the providers, sends requests to candidates as a
/// ``RaceMachine`` decides, and judges their responses. One object serves all races of a transfer, one after the other.
///
/// Confined to its event loop; `Sendable` only so that it can be carried back there.
final class PeerRace: @unchecked Sendable {
    private struct Attempt {
        let id: RaceMachine<PeerEndpoint>.AttemptID
        let request: PeerRequest
        let startedAt: NIODeadline
        /// The response that was accepted.
        var response: (head: PeerResponseHead, acceptance: TransferPlan.Acceptance)?

        /// The time since the request was sent, or waits for a connection.
        func duration(now: NIODeadline) -> TimeAmount { now - (request.sentAt ?? startedAt) }
    }

    /// How long a peer may take to answer without being blamed when the request's deadline passes.
    private static let answerTime: TimeAmount = .milliseconds(250)

    private let request: MissRequest
    private let key: String
    private let clock: StallAdjustedClock
    private let loop: MirrorLoop
    private let context: MirrorContext
    private let arrivedAt: NIODeadline
    private lazy var timer = DeadlineTimer(clock: clock) { [weak self] in self?.timePassed() }
    weak var delegate: (any PeerRaceDelegate)?

    /// The current race.
    private var machine = RaceMachine<PeerEndpoint>(limits: .init(attempts: 1)) { _ in 0 }
    private var attempts: [Attempt] = []
    private(set) var candidates = Candidates()
    /// What responses are judged by.
    private var plan: TransferPlan?
    /// The lookup under way: its subscription, or nil when the result is complete.
    private var subscription: UInt64?
    private var isCachedLookup = false
    /// The peer whose body is received during this race, if one is to take over from it.
    private var slowSource: PeerEndpoint?
    /// Whether the duration of the first lookup was recorded.
    private var isResolved = false
    /// The failures of all races, from which follows why a request has no content.
    var failures = FailureTally()
    /// Whether the peer that is asked is itself receiving the content.
    private var isFollowing = false
    /// Whether the outcome of the current lookup is counted.
    private var isLookupCounted = false
    /// The size of the content that a peer stated for a range outside of it.
    private(set) var unsatisfiedSize: Int64?

    init(
        _ request: MissRequest, key: String, arrivedAt: NIODeadline, clock: StallAdjustedClock, loop: MirrorLoop,
        context: MirrorContext
    ) {
        self.request = request
        self.key = key
        self.arrivedAt = arrivedAt
        self.clock = clock
        self.loop = loop
        self.context = context
    }

    // MARK: Verbs of the transfer

    /// Starts a race for the next bytes of `plan`.
    ///
    /// - Parameters:
    ///   - lookupTimeout: how long the lookup is waited for, once it has started.
    ///   - deadline: when the race fails in any case.
    ///   - slowSource: the peer whose body is still received, from which another one is to take over; nil for none.
    func start(
        _ plan: TransferPlan, lookupTimeout: Duration, deadline: NIODeadline?,
        takingOverFrom slowSource: PeerEndpoint? = nil
    ) {
        prepare(plan, deadline: deadline)
        self.slowSource = slowSource
        let snapshot = context.lookup.find(
            key,
            ProviderLookup.Subscriber(
                eventLoop: loop.eventLoop, started: { self.lookupStarted(lookupTimeout) },
                found: { self.found([$0]) }, ended: { self.lookupEnded() }))
        subscription = snapshot.isComplete ? nil : snapshot.subscription
        isCachedLookup = snapshot.isComplete && !snapshot.peers.isEmpty
        isLookupCounted = false
        if snapshot.isComplete { countLookup(.cached) }
        if !snapshot.isQueued { lookupStarted(lookupTimeout) }
        found(snapshot.peers)
        if snapshot.isComplete { lookupEnded() }
        schedule()
    }

    /// Starts a race in which a peer is asked alone that is itself receiving the content.
    func start(_ plan: TransferPlan, following peer: Peer, deadline: NIODeadline?) {
        prepare(plan, deadline: deadline)
        isFollowing = true
        isLookupCounted = true
        found([peer])
        lookupEnded()
        schedule()
    }

    private func prepare(_ plan: TransferPlan, deadline: NIODeadline?) {
        cancel()
        self.plan = plan
        (slowSource, isFollowing, isCachedLookup) = (nil, false, false)
        machine = RaceMachine(
            limits: .init(attempts: context.configuration.resolveRetries, deadline: deadline),
            isSameSource: { $0.address == $1.address },
            rank: { [unowned self] in rank($0) })
    }

    /// The limits of requests to peers.
    private var client: PeerClientConfiguration {
        var client = context.configuration.peers
        guard isFollowing, let coldStart = context.coldStart else { return client }
        // A manifest is sent as a whole, once it is there.
        let isManifest = plan?.expectation.isManifest ?? false
        client.firstByteTimeout = isManifest ? coldStart.configuration.wait : ColdStart.firstByteTimeout
        return client
    }

    /// Ends the race and all attempts for good.
    func stop() {
        delegate = nil
        cancel()
    }

    /// Ends the race and all attempts.
    func cancel() {
        timer.cancel()
        unsubscribe()
        _ = machine.cancel()
        for attempt in attempts {
            requestEnded(attempt.request)
            attempt.request.cancel()
        }
        attempts = []
    }

    /// The request that won has ended, in whatever way.
    func requestEnded(_ request: PeerRequest) {
        context.directory.withStats { $0.requestEnded(request.peer, now: .now()) }
    }

    /// The winner ended the body early, or was slow.
    func bodyTruncated(by peer: PeerEndpoint) {
        candidates.bodyTruncated(by: peer)
        recordFailure(of: peer, .truncated)
    }

    /// The winner was so slow that another peer has taken over.
    func wasSlow(_ peer: PeerEndpoint) {
        candidates.bodyTruncated(by: peer)
        recordFailure(of: peer, .slow)
    }

    /// The winner sent too little: it is not asked for this content again.
    func stalled(_ peer: PeerEndpoint) {
        candidates.exclude(peer)
        let (digest, isObserved) = (digest, candidates.isObserved(peer))
        context.directory.withStats { $0.recordStall(peer, digest: digest, isObserved: isObserved, now: .now()) }
    }

    /// The peer is not asked in this transfer.
    func exclude(_ peer: PeerEndpoint) { candidates.exclude(peer) }

    /// The body is dropped: the peers whose bytes it has are not asked again.
    func excludeBodySources() { candidates.excludeBodySources() }

    /// Continues for a client whose earlier lookups and body sources were another transfer's.
    func adopt(_ candidates: Candidates) {
        self.candidates = candidates
        isResolved = true
    }

    // MARK: Statistics

    /// The digest that is asked for, or that a peer has stated for the tag.
    private var digest: Digest? { plan?.expectation.digest ?? request.distribution.digest }

    private func rank(_ peer: PeerEndpoint) -> Int {
        let (digest, isObserved) = (digest, candidates.isObserved(peer))
        let eligibility = context.directory.withStats {
            $0.eligibility(of: peer, for: digest, isObserved: isObserved, now: .now())
        }
        if case .eligible(let rank) = eligibility { return rank }
        return 1_000_000_000
    }

    private func recordFailure(of peer: PeerEndpoint, _ failure: PeerStats.Failure) {
        let isObserved = candidates.isObserved(peer)
        context.directory.withStats { $0.recordFailure(peer, failure, isObserved: isObserved, now: .now()) }
    }

    // MARK: Lookup

    private var isRacing: Bool { !machine.isOver }

    private func lookupStarted(_ timeout: Duration) {
        machine.lookupStarted(deadline: clock.now + TimeAmount(timeout))
        schedule()
    }

    private func found(_ found: [Peer]) {
        guard isRacing, !found.isEmpty else { return }
        resolved()
        countLookup(.found)
        let (digest, now) = (digest, NIODeadline.now())
        let localPeer = context.router.localPeer.id
        let policy = context.configuration.peers.addressPolicy
        var (added, deprioritized) = context.directory.withStats { stats in
            let added = candidates.add(found, localPeer: localPeer, policy: policy) {
                stats.eligibility(of: $0, for: digest, isObserved: $1, now: now) != .excluded
            }
            let deprioritized = added.filter {
                stats.isDeprioritized($0, isObserved: candidates.isObserved($0), now: now)
            }
            return (added, Set(deprioritized))
        }
        if let slowSource { added.removeAll { !candidates.mayTakeOver($0, from: slowSource) } }
        // The first to announce themselves are not the first to be asked.
        added.shuffle()
        perform {
            $0.found(added, now: $1, hedgeDelay: $2) {
                candidates.preference(of: $0, isDeprioritized: deprioritized.contains($0))
            }
        }
    }

    private func lookupEnded() {
        subscription = nil
        countLookup(.empty)
        perform { $0.lookupEnded(now: $1, hedgeDelay: $2) }
    }

    /// The lookup has found its first provider, or none.
    func resolved() {
        guard !isResolved else { return }
        isResolved = true
        context.metrics.resolved(after: .now() - arrivedAt)
    }

    private func countLookup(_ outcome: MirrorMetrics.LookupOutcome) {
        guard !isLookupCounted else { return }
        isLookupCounted = true
        context.metrics.lookup(outcome)
    }

    private func unsubscribe() {
        if let subscription { context.lookup.unsubscribe(subscription, key: key) }
        subscription = nil
    }

    // MARK: Attempts

    private func timePassed() {
        perform { $0.timePassed(now: $1, hedgeDelay: $2) }
    }

    private func schedule() {
        timer.set(machine.nextDeadline)
    }

    /// Reports an event to the machine and carries out what it decides.
    private func perform(
        _ event: (inout RaceMachine<PeerEndpoint>, NIODeadline, (Int) -> TimeAmount) -> [RaceMachine<PeerEndpoint>
            .Action]
    ) {
        guard isRacing else { return }
        let actions = event(&machine, clock.now) { [loop] in loop.latency.hedgeDelay(concurrent: $0, now: .now()) }
        let isTooLate = actions.contains(.fail(.deadline))
        for action in actions {
            switch action {
            case .start(let id, let peer): startAttempt(id, peer)
            case .cancel(let id): cancelAttempt(id, isTooLate: isTooLate)
            case .raceWon(let id, _): raceWon(id)
            case .fail(let reason): raceFailed(reason)
            }
        }
        schedule()
    }

    /// - Parameter isTooLate: whether the deadline has passed: a peer that had time to answer has failed.
    private func cancelAttempt(_ id: RaceMachine<PeerEndpoint>.AttemptID, isTooLate: Bool) {
        guard let attempt = removeAttempt({ $0.id == id }) else { return }
        attempt.request.cancel()
        guard isTooLate, let sentAt = attempt.request.sentAt, clock.now - sentAt >= Self.answerTime else { return }
        failures.add("timeout")
        context.metrics.peerFailed(attempt.request.peer, "timeout")
        recordFailure(of: attempt.request.peer, .slow)
    }

    private func startAttempt(_ id: RaceMachine<PeerEndpoint>.AttemptID, _ peer: PeerEndpoint) {
        guard let plan else { return }
        if !attempts.isEmpty { context.metrics.hedges.increment() }
        context.metrics.attempts.increment()
        let isLastCandidate = candidates.isLastOne || !machine.hasWaiting
        let attempt = PeerRequest(
            PeerRequest.Message(
                uri: request.distribution.uri, isHead: plan.expectation.isHead, range: plan.nextRange?.description,
                // Only where the router itself has met the peer, and there only when it asks for them.
                authorization: candidates.isObserved(peer) ? context.authorization : nil),
            to: peer, isObserved: candidates.isObserved(peer), isUrgent: isLastCandidate, pool: loop.pool,
            configuration: client, clock: clock, delegate: self)
        attempts.append(Attempt(id: id, request: attempt, startedAt: clock.now))
        context.directory.withStats { $0.requestStarted(peer, now: .now()) }
        attempt.start()
    }

    private func removeAttempt(_ matches: (Attempt) -> Bool) -> Attempt? {
        guard let index = attempts.firstIndex(where: matches) else { return nil }
        let attempt = attempts.remove(at: index)
        requestEnded(attempt.request)
        return attempt
    }

    private func attemptFailed(
        _ request: PeerRequest, _ failure: RaceMachine<PeerEndpoint>.AttemptFailure, reason: String,
        recordedAs recorded: PeerStats.Failure? = nil
    ) {
        guard let attempt = removeAttempt({ $0.request === request }) else { return }
        request.cancel()
        if let recorded { recordFailure(of: request.peer, recorded) }
        failures.add(reason)
        context.metrics.peerFailed(request.peer, reason)
        if failure != .unreachable { loop.latency.record(attempt.duration(now: clock.now), now: .now()) }
        candidates.attemptFailed()
        perform { $0.failed(attempt.id, failure, now: $1, hedgeDelay: $2) }
    }

    // MARK: Outcome

    private func raceWon(_ id: RaceMachine<PeerEndpoint>.AttemptID) {
        guard let index = attempts.firstIndex(where: { $0.id == id }), let (head, acceptance) = attempts[index].response
        else { return }
        // The winner's request stays in the statistics until the transfer reports its end.
        let request = attempts.remove(at: index).request
        unsubscribe()
        timer.cancel()
        candidates.addBodySource(request.peer)
        delegate?.raceWon(by: request, head, acceptance)
    }

    private func raceFailed(_ reason: RaceMachine<PeerEndpoint>.FailureReason) {
        // The next request must not try the same peers again.
        if slowSource == nil, !isFollowing, reason == .exhausted || isCachedLookup { context.lookup.invalidate(key) }
        resolved()
        if reason == .noPeers, subscription != nil, !isLookupCounted {
            countLookup(.timeout)
            failures.add("timeout")
        }
        delegate?.raceFailed(reason, isCachedLookup: isCachedLookup)
    }
}

extension PeerRace: PeerRequestDelegate {
    func request(_ request: PeerRequest, received head: PeerResponseHead) {
        guard isRacing, let plan, let index = attempts.firstIndex(where: { $0.request === request }) else { return }
        switch plan.judge(head) {
        case .accept(let acceptance):
            let time = attempts[index].duration(now: clock.now)
            loop.latency.record(time, now: .now())
            context.metrics.firstByte.recordNanoseconds(time.nanoseconds)
            context.directory.withStats { $0.recordLatency(request.peer, time, now: .now()) }
            attempts[index].response = (head, acceptance)
            let id = attempts[index].id
            perform { machine, _, _ in machine.answered(id) }
        case .busy:
            attemptFailed(request, .busy, reason: "busy", recordedAs: .busy)
        case .unsatisfiable(let size):
            unsatisfiedSize = size
            attemptFailed(request, .refused, reason: "range")
        case .reject(let rejection):
            context.logger.debug(
                "response of a peer rejected",
                metadata: ["key": "\(key)", "peer": "\(request.peer)", "reason": "\(rejection)"])
            if rejection.isLengthMismatch, !candidates.bodySources.isEmpty { delegate?.raceSawLengthMismatch() }
            attemptFailed(
                request, .refused, reason: rejection.label,
                recordedAs: rejection == .status(404) ? .absent : .truncated)
        }
    }

    func request(_ request: PeerRequest, received body: ByteBuffer) {}
    func requestReadCompleted(_ request: PeerRequest) {}

    func requestCompleted(_ request: PeerRequest) {
        // A response without body that was not accepted.
        attemptFailed(request, .refused, reason: "closed")
    }

    func request(_ request: PeerRequest, failed failure: PeerFailure) {
        switch failure {
        case .unreachable:
            attemptFailed(request, .unreachable, reason: failure.label)
        case .overloaded, .closedBeforeHead:
            attemptFailed(request, .busy, reason: failure.label)
        case .firstByteTimeout:
            attemptFailed(request, .refused, reason: failure.label, recordedAs: .slow)
        case .stalled, .closedEarly, .protocolError:
            attemptFailed(request, .refused, reason: failure.label, recordedAs: .truncated)
        }
    }
}

extension TransferPlan.Rejection {
    /// Whether the peer states another length of the content than is known.
    fileprivate var isLengthMismatch: Bool {
        switch self {
        case .wrongLength, .status(416): true
        default: false
        }
    }

    /// A short name with few values, for metrics.
    var label: String {
        switch self {
        case .status(404): "absent"
        case .status: "status"
        case .noLength, .wrongLength, .tooLarge: "length"
        case .encoded: "encoding"
        case .wrongDigest, .noDigest: "digest"
        case .wrongType: "type"
        case .wrongRange, .ignoresRange: "range"
        }
    }
}
