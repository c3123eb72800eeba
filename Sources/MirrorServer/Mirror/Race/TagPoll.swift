import Logging
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// What peers say a tag stands for, and which of it is believed.
///
/// A peer's word for a tag cannot be verified. So several are asked, and the digest that most addresses name wins: among peers
/// that have contributed to verified bodies; without any such, among those that the router has met; else among all.
///
/// A value type without I/O.
struct TagVote: Sendable {
    /// How far a peer's word counts.
    enum Trust: Int, Sendable, Comparable {
        case claimed, observed, proven

        static func < (a: Trust, b: Trust) -> Bool { a.rawValue < b.rawValue }
    }

    struct Answer: Sendable {
        var peer: PeerEndpoint
        var digest: Digest
        var trust: Trust
        /// Verified bodies to which the peer has contributed: decides between digests with as many votes.
        var verifiedBodies: Int
    }

    private(set) var answers: [Answer] = []

    mutating func record(_ answer: Answer) { answers.append(answer) }

    /// The digest that wins; nil without answers.
    var winner: Digest? {
        guard let trust = answers.map(\.trust).max() else { return nil }
        let voters = answers.filter { $0.trust == trust }
        var addresses: [Digest: Set<IPAddress>] = [:]
        var verified: [Digest: Int] = [:]
        for voter in voters {
            addresses[voter.digest, default: []].insert(voter.peer.address)
            verified[voter.digest, default: 0] += voter.verifiedBodies
        }
        // The first of those that are equal in everything.
        var best: Digest?
        for digest in voters.map(\.digest) where digest != best {
            guard let current = best else {
                best = digest
                continue
            }
            let (new, old) = (addresses[digest]?.count ?? 0, addresses[current]?.count ?? 0)
            if (new, verified[digest] ?? 0) > (old, verified[current] ?? 0) { best = digest }
        }
        return best
    }

    /// The peers that name another digest.
    func dissenters(from digest: Digest) -> [PeerEndpoint] { answers.filter { $0.digest != digest }.map(\.peer) }
}

/// Asks several providers of a tag which digest it stands for, with HEAD requests at the same time.
///
/// Confined to its event loop; `Sendable` only so that it can be carried back there.
final class TagPoll: @unchecked Sendable {
    /// Most peers asked, each at an address of its own;
    static let peerLimit = 8
    /// further ones are asked only when they are proven.
    static let provenLimit = 16

    enum Outcome: Sendable {
        /// The digest, and the peers that name another one.
        case resolved(Digest, dissenters: [PeerEndpoint])
        case failed(RaceMachine<PeerEndpoint>.FailureReason, isCachedLookup: Bool)
    }

    private let request: MissRequest
    private let key: String
    private let plan: TransferPlan
    private let clock: StallAdjustedClock
    private let loop: MirrorLoop
    private let context: MirrorContext
    private let onProvider: () -> Void
    private var completion: ((Outcome) -> Void)?
    private lazy var timer = DeadlineTimer(clock: clock) { [weak self] in self?.timePassed() }

    private var candidates = Candidates()
    private var vote = TagVote()
    private var pending: [PeerRequest] = []
    private var polled: Set<IPAddress> = []
    private var subscription: UInt64?
    private var isCachedLookup = false
    private var hasFound = false
    private var hasLookupEnded = false
    private var lookupDeadline: NIODeadline?
    private let deadline: NIODeadline?
    /// When peers that have not answered are no longer waited for, because others have.
    private var graceEnd: NIODeadline?

    /// - Parameters:
    ///   - plan: what responses are judged by.
    ///   - onProvider: called when the lookup finds its first provider.
    ///   - completion: called once, unless the poll is stopped before.
    init(
        _ request: MissRequest, key: String, plan: TransferPlan, clock: StallAdjustedClock, loop: MirrorLoop,
        context: MirrorContext, deadline: NIODeadline?, onProvider: @escaping () -> Void,
        completion: @escaping (Outcome) -> Void
    ) {
        self.request = request
        self.key = key
        self.plan = plan
        self.clock = clock
        self.loop = loop
        self.context = context
        self.deadline = deadline
        self.onProvider = onProvider
        self.completion = completion
    }

    /// Starts; the completion may be called at once.
    ///
    /// - Parameter lookupTimeout: how long the lookup is waited for, once it has started.
    func start(lookupTimeout: Duration) {
        let snapshot = context.lookup.find(
            key,
            ProviderLookup.Subscriber(
                eventLoop: loop.eventLoop, started: { self.lookupStarted(lookupTimeout) },
                found: { self.found([$0]) }, ended: { self.lookupEnded() }))
        subscription = snapshot.isComplete ? nil : snapshot.subscription
        isCachedLookup = snapshot.isComplete && !snapshot.peers.isEmpty
        if !snapshot.isQueued { lookupStarted(lookupTimeout) }
        found(snapshot.peers)
        if snapshot.isComplete { lookupEnded() }
        decide()
    }

    /// Ends the poll; the completion is not called any more.
    func stop() {
        completion = nil
        timer.cancel()
        if let subscription { context.lookup.unsubscribe(subscription, key: key) }
        subscription = nil
        for request in pending {
            ended(request)
            request.cancel()
        }
        pending = []
    }

    private func lookupStarted(_ timeout: Duration) {
        guard completion != nil, lookupDeadline == nil else { return }
        lookupDeadline = clock.now + TimeAmount(timeout)
        decide()
    }

    private func lookupEnded() {
        subscription = nil
        hasLookupEnded = true
        decide()
    }

    private func found(_ found: [Peer]) {
        guard completion != nil, !found.isEmpty else { return }
        if !hasFound {
            hasFound = true
            onProvider()
        }
        let (localPeer, policy) = (context.router.localPeer.id, context.configuration.peers.addressPolicy)
        let now = NIODeadline.now()
        let ranked = context.directory.withStats { stats -> [(peer: PeerEndpoint, rank: Int, isProven: Bool)] in
            candidates.add(found, localPeer: localPeer, policy: policy) {
                stats.eligibility(of: $0, for: nil, isObserved: $1, now: now) != .excluded
            }.shuffled().map { peer in
                let isObserved = candidates.isObserved(peer)
                let eligibility = stats.eligibility(of: peer, for: nil, isObserved: isObserved, now: now)
                if case .eligible(let rank) = eligibility { return (peer, rank, stats.isProven(peer)) }
                return (peer, .max, false)
            }
        }
        for (peer, _, isProven) in ranked.sorted(by: { $0.rank < $1.rank }) {
            guard polled.count < (isProven ? Self.provenLimit : Self.peerLimit), polled.insert(peer.address).inserted
            else { continue }
            ask(peer)
        }
    }

    private func ask(_ peer: PeerEndpoint) {
        context.metrics.attempts.increment()
        let request = PeerRequest(
            PeerRequest.Message(
                uri: request.distribution.uri, isHead: true, range: nil,
                authorization: candidates.isObserved(peer) ? context.authorization : nil),
            to: peer, isObserved: candidates.isObserved(peer), isUrgent: true, pool: loop.pool,
            configuration: context.configuration.peers, clock: clock, delegate: self)
        pending.append(request)
        context.directory.withStats { $0.requestStarted(peer, now: .now()) }
        request.start()
    }

    private func ended(_ request: PeerRequest) {
        context.directory.withStats { $0.requestEnded(request.peer, now: .now()) }
    }

    private func remove(_ request: PeerRequest) -> Bool {
        guard let index = pending.firstIndex(where: { $0 === request }) else { return false }
        pending.remove(at: index)
        ended(request)
        return true
    }

    private func failed(_ request: PeerRequest, reason: String, recordedAs failure: PeerStats.Failure?) {
        guard remove(request) else { return }
        context.metrics.peerFailed(request.peer, reason)
        if let failure {
            let isObserved = candidates.isObserved(request.peer)
            context.directory.withStats {
                $0.recordFailure(request.peer, failure, isObserved: isObserved, now: .now())
            }
        }
        decide()
    }

    private func timePassed() { decide() }

    private func decide() {
        guard completion != nil else { return }
        let now = clock.now
        if let deadline, now >= deadline { return complete(vote.winner, orElse: .deadline) }
        let isLookupOver = hasLookupEnded || (lookupDeadline.map { now >= $0 } ?? false)
        if vote.winner != nil, graceEnd == nil {
            graceEnd = now + max(loop.latency.hedgeDelay(concurrent: 1, now: .now()), .milliseconds(20))
        }
        let isGraceOver = graceEnd.map { now >= $0 } ?? false
        if isGraceOver || (isLookupOver && pending.isEmpty) {
            return complete(vote.winner, orElse: hasFound ? .exhausted : .noPeers)
        }
        timer.set([deadline, isLookupOver ? nil : lookupDeadline, graceEnd].compactMap { $0 }.min())
    }

    private func complete(_ digest: Digest?, orElse reason: RaceMachine<PeerEndpoint>.FailureReason) {
        guard let completion else { return }
        stop()
        guard let digest else {
            if reason == .exhausted || isCachedLookup { context.lookup.invalidate(key) }
            return completion(.failed(reason, isCachedLookup: isCachedLookup))
        }
        let dissenters = vote.dissenters(from: digest)
        if !dissenters.isEmpty {
            context.logger.debug(
                "peers disagree about a tag",
                metadata: [
                    "key": "\(key)", "digest": "\(digest)",
                    "dissenters": "\(dissenters.map(\.description).joined(separator: " "))",
                ])
        }
        completion(.resolved(digest, dissenters: dissenters))
    }
}

extension TagPoll: PeerRequestDelegate {
    func request(_ request: PeerRequest, received head: PeerResponseHead) {
        switch plan.judge(head) {
        case .accept(let acceptance):
            guard remove(request) else { return }
            request.cancel()
            let (peer, isObserved) = (request.peer, candidates.isObserved(request.peer))
            let bodies = context.directory.withStats { $0.verifiedBodies(peer) }
            vote.record(
                .init(
                    peer: peer, digest: acceptance.digest,
                    trust: bodies > 0 ? .proven : isObserved ? .observed : .claimed, verifiedBodies: bodies))
            decide()
        case .busy:
            request.cancel()
            failed(request, reason: "busy", recordedAs: .busy)
        case .unsatisfiable:
            request.cancel()
            failed(request, reason: "range", recordedAs: nil)
        case .reject(let rejection):
            request.cancel()
            failed(request, reason: rejection.label, recordedAs: rejection == .status(404) ? .absent : .truncated)
        }
    }

    func request(_ request: PeerRequest, received body: ByteBuffer) {}
    func requestReadCompleted(_ request: PeerRequest) {}
    func requestCompleted(_ request: PeerRequest) { failed(request, reason: "closed", recordedAs: nil) }

    func request(_ request: PeerRequest, failed failure: PeerFailure) {
        failed(request, reason: failure.label, recordedAs: failure == .firstByteTimeout ? .slow : nil)
    }
}
