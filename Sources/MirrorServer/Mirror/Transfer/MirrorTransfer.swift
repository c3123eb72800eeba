import HTTPServer
import Logging
import Metrics
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// One transfer from peers to the clients that requested the same content: a ``PeerRace`` finds the peer, a
/// ``TransferBody`` receives and verifies its bytes, a ``ClientGroup`` sends them, and after a failure
/// ``TransferRecovery`` decides how it goes on.
///
/// Confined to the event loop of the clients' connections; `Sendable` only so that it can be carried back there. Its
/// clients keep it alive until it has ended.
final class MirrorTransfer: @unchecked Sendable {
    private enum Phase {
        case resolving(TagPoll)
        case racing
        /// The content is being claimed, because no peer has it.
        case claiming
        /// The body of this request's response is received.
        case receiving(PeerRequest)
        /// The body is complete and its digest is being computed.
        case verifying
        case ended
    }

    let request: MissRequest
    let clients: ClientGroup
    private let context: MirrorContext
    private let loop: MirrorLoop
    private let key: String
    private let isManifest: Bool
    private let clock: StallAdjustedClock
    private let arrivedAt: NIODeadline
    private let race: PeerRace
    private lazy var timer = DeadlineTimer(clock: clock) { [weak self] in self?.timePassed() }

    private var phase = Phase.racing
    private var body: TransferBody
    private var recovery: TransferRecovery
    /// The peer whose own copy still grows and that was asked because of a claim.
    private var parent: PeerID?
    /// Claims of this request.
    private var claims = 0
    /// Whether a race is under way for a peer that takes over from the one whose body is received.
    private var isHedging = false
    /// When the response has to have begun; nil once it has.
    private var responseDeadline: NIODeadline?
    /// Under which further clients can join; nil when none can.
    private var coalescingKey: MirrorLoop.CoalescingKey?
    private let record: TransferRecord
    private var bodyStartedAt: NIODeadline?

    /// - Parameter client: admitted by ``MirrorContext/admit()``.
    init(_ client: ClientGroup.Client, loop: MirrorLoop, context: MirrorContext) {
        let request = client.request
        self.request = request
        self.loop = loop
        self.context = context
        clients = ClientGroup(client) { context.requestEnded() }
        arrivedAt = client.arrivedAt
        clock = context.makeClock(loop.timers)
        key = request.distribution.lookupKey ?? ""
        if case .manifest = request.distribution.kind { isManifest = true } else { isManifest = false }
        record = context.metrics.startTransfer(request.distribution)
        body = TransferBody(request, isManifest: isManifest, context: context)
        recovery = Self.makeRecovery(context.configuration, offset: 0)
        race = PeerRace(request, key: key, arrivedAt: arrivedAt, clock: clock, loop: loop, context: context)
    }

    private static func makeRecovery(_ configuration: MirrorConfiguration, offset: Int64) -> TransferRecovery {
        TransferRecovery(
            limits: .init(
                resumesWithoutProgress: configuration.resumesWithoutProgress,
                resumeBytes: Int64(configuration.resumeBytes), restarts: configuration.resolveRetries),
            offset: offset)
    }

    private var configuration: MirrorConfiguration { context.configuration }

    // MARK: Start

    /// Starts. Called once.
    ///
    /// - Parameter coalescingKey: what the requests of further clients that may join have in common; nil if none may.
    func start(coalescingAs coalescingKey: MirrorLoop.CoalescingKey?) {
        clients.attach(self)
        race.delegate = self
        guard !key.isEmpty else { return recover(from: .noKey) }
        guard body.plan.expectation.digest != nil || configuration.resolvesTags else {
            return recover(from: .tagsNotResolved)
        }
        let limit = request.isHead || isManifest ? configuration.manifestTimeout : configuration.blobTimeout
        responseDeadline = clock.now + TimeAmount(limit) - (NIODeadline.now() - arrivedAt)
        if let coalescingKey, loop.startCoalescing(self, coalescingKey) { self.coalescingKey = coalescingKey }
        startRace()
    }

    /// Most claims of one request: each names one peer to follow.
    private static let claimLimit = 6

    /// Continues the response of a client that another transfer has served so far: the same bytes were sent, are buffered
    /// and count for the digest.
    private func adopt(state: (body: TransferBody, candidates: Candidates)) {
        clients.attach(self)
        race.delegate = self
        race.adopt(state.candidates.adopted())
        body = state.body.fork { self.receiveMore() }
        recovery = Self.makeRecovery(configuration, offset: body.plan.offset)
        startRace()
    }

    /// - Parameter parent: the only peer to ask, because of a claim; nil for those that a lookup finds.
    private func startRace(parent: Peer? = nil) {
        isHedging = false
        self.parent = parent?.id
        timer.cancel()
        guard body.plan.expectation.digest != nil else { return resolveTag() }
        phase = .racing
        let resolveTimeout = configuration.resolveTimeout
        if let parent {
            return race.start(body.plan, following: parent, deadline: clients.isHeadWritten ? nil : responseDeadline)
        }
        race.start(
            body.plan,
            lookupTimeout: body.hasBegun ? max(resolveTimeout, configuration.resumeTimeout) : resolveTimeout,
            deadline: clients.isHeadWritten ? nil : responseDeadline)
    }

    /// Asks several peers for the digest of the tag before one of them is asked for its content.
    private func resolveTag() {
        let poll = TagPoll(
            request, key: key, plan: body.plan, clock: clock, loop: loop, context: context,
            deadline: responseDeadline, onProvider: { [race] in race.resolved() },
            completion: { [weak self] in self?.tagPolled($0) })
        phase = .resolving(poll)
        poll.start(lookupTimeout: configuration.resolveTimeout)
    }

    private func tagPolled(_ outcome: TagPoll.Outcome) {
        guard case .resolving = phase else { return }
        switch outcome {
        case .resolved(let digest, let dissenters):
            for peer in dissenters { race.exclude(peer) }
            body.resolved(to: digest)
            startRace()
        case .failed(let reason, let isCachedLookup):
            race.resolved()
            recover(from: .raceFailed(reason, isCachedLookup: isCachedLookup, hasBody: false))
        }
    }

    // MARK: Receiving

    private func receive(_ bytes: ByteBuffer, from source: PeerRequest) {
        let free = body.receive(bytes)
        record.received(bytes.readableBytes, offset: body.plan.offset)
        if let free {
            clients.write(free)
            clients.flush()
        }
        // A peer that ignored the range sends more than is wanted.
        if isSource(source), body.plan.hasSurplus {
            source.cancel()
            bodyCompleted(by: source)
        }
    }

    /// Reads on, unless a client or the hasher is behind.
    private func receiveMore() {
        guard case .receiving(let source) = phase else { return }
        let isWritable = body.isBufferedWhole || clients.isWritable
        let expects = isWritable && !body.isHashingBehind
        body.expectBytes(expects, now: clock.now)
        if expects {
            source.read()
            schedule()
        } else if !isWritable {
            clients.waitForSlowClients(timeout: configuration.slowClientTimeout, clock: clock)
        }
    }

    private func stopCoalescing() {
        if let coalescingKey { loop.stopCoalescing(coalescingKey) }
        coalescingKey = nil
    }

    private func writeHead() {
        responseDeadline = nil
        stopCoalescing()
        clients.writeHead(body.responseHead)
        // The first bytes follow at once, unless the peer is slow: then the head must not wait for them.
        clients.flush()
    }

    // MARK: Verification

    private func bodyCompleted(by source: PeerRequest) {
        phase = .verifying
        sourceEnded(source)
        context.metrics.peerCompleted(source.peer)
        race.cancel()
        guard body.needsVerification else { return succeed(body.unverifiedResult) }
        // A copy, because the completion may be called at once and changes the body.
        let body = body
        body.verify { result in self.verified(result) }
    }

    private func verified(_ result: Result<Void, VerificationError>) {
        guard case .verifying = phase else { return }
        switch result {
        case .success:
            succeed(.verified)
        case .failure(let error):
            let sources = race.candidates.bodySources
            context.metrics.verification(.mismatch)
            race.failures.add("mismatch")
            if parent != nil, let digest = body.plan.expectation.digest { context.coldStart?.distrust(digest) }
            if sources.count == 1, parent == nil { context.metrics.peerFailed(sources[0], "mismatch") }
            context.logger.warning(
                "peer content does not match its digest",
                metadata: [
                    "key": "\(key)", "error": "\(error)",
                    "peers": "\(sources.map(\.description).joined(separator: " "))",
                ])
            // A parent relays what is not verified yet: where the wrong byte came from is not known.
            if parent != nil { return fail(.digestMismatch) }
            recover(from: .digestMismatch(sources: sources.count))
        }
    }

    /// The request whose body was received has ended, in whatever way.
    private func sourceEnded(_ source: PeerRequest) {
        isHedging = false
        record.sourceEnded()
        body.responseEnded(now: clock.now, &loop.throughput)
        race.requestEnded(source)
    }

    private func succeed(_ verification: MirrorMetrics.Verification) {
        let sources = race.candidates.bodySources
        context.directory.withStats { stats in
            for peer in sources { stats.recordCompletion(peer, isVerified: verification == .verified, now: .now()) }
        }
        let rest = body.release(&loop.manifestTypes)
        if !clients.isHeadWritten { clients.writeHead(body.responseHead) }
        for bytes in rest { clients.write(bytes) }
        context.metrics.verification(verification)
        if let bodyStartedAt { context.metrics.body.recordNanoseconds((.now() - bodyStartedAt).nanoseconds) }
        end(.hit(bytes: body.plan.length, isVerified: verification == .verified))
        clients.finish()
    }

    // MARK: Recovery

    private func interrupted(_ source: PeerRequest, by failure: PeerFailure) {
        sourceEnded(source)
        if parent != nil {
            // Perhaps the one that it follows itself has failed.
            race.exclude(source.peer)
        } else if failure == .stalled {
            race.stalled(source.peer)
        } else {
            race.bodyTruncated(by: source.peer)
        }
        peerFailed(source, failure.label)
        context.logger.debug(
            "a peer interrupted a transfer",
            metadata: [
                "key": "\(key)", "offset": "\(body.plan.offset)", "peer": "\(source.peer)", "reason": "\(failure)",
            ])
        recover(from: .interrupted(offset: body.plan.offset))
    }

    /// The response did not begin in time, because the peer sends its body too slowly.
    private func timedOut(_ source: PeerRequest) {
        if parent == nil { race.stalled(source.peer) }
        peerFailed(source, PeerFailure.stalled.label)
        recover(from: .timedOut)
    }

    private func peerFailed(_ source: PeerRequest, _ reason: String) {
        race.failures.add(reason)
        context.metrics.peerFailed(source.peer, reason)
    }

    // MARK: Hedging

    /// Looks for another peer that takes over from the next byte. The slow one goes on until then, and if there is none.
    private func hedge(_ source: PeerRequest) {
        schedule()
        guard !isHedging else { return }
        isHedging = true
        race.start(
            body.plan, lookupTimeout: max(configuration.resolveTimeout, configuration.resumeTimeout),
            deadline: clients.isHeadWritten ? nil : responseDeadline, takingOverFrom: source.peer)
    }

    /// Another peer continues the body of a slow one.
    private func takenOver(from source: PeerRequest, by successor: PeerRequest) {
        context.logger.debug(
            "a peer takes over from a slow one",
            metadata: [
                "key": "\(key)", "offset": "\(body.plan.offset)", "peer": "\(successor.peer)", "slow": "\(source.peer)",
            ])
        context.metrics.resumes.increment()
        peerFailed(source, "slow")
        sourceEnded(source)
        race.wasSlow(source.peer)
        source.cancel()
    }

    /// Carries out the one decision of how the transfer goes on.
    private func recover(from failure: TransferRecovery.Failure) {
        let decision = recovery.decide(after: failure, isHeadSent: clients.isHeadWritten)
        if let mismatch = decision.recordedMismatch { record(mismatch) }
        switch decision.action {
        case .resume:
            if case .interrupted = failure { context.metrics.resumes.increment() }
            startRace()
        case .restart:
            body.restart()
            race.excludeBodySources()
            startRace()
        case .fail(let reason):
            if !claim(insteadOf: reason) { fail(reason) }
        }
    }

    // MARK: Claims

    /// Claims content that no peer has: perhaps another node is about to have it.
    ///
    /// - Returns: false when the failure stands.
    private func claim(insteadOf reason: TransferRecovery.FailureReason) -> Bool {
        guard let coldStart = context.coldStart, let digest = request.distribution.digest, !body.isHeadOnly,
            claims < Self.claimLimit, coldStart.canClaim
        else { return false }
        switch reason {
        case .noPeers, .allPeersFailed, .interrupted: break
        case .timedOut, .digestMismatch, .noKey, .tagsNotResolved: return false
        }
        claims += 1
        phase = .claiming
        timer.cancel()
        let (offset, failedParent, eventLoop) = (body.plan.offset, parent, loop.eventLoop)
        parent = nil
        Task {
            let decision = await coldStart.claim(digest, offset: offset, failedParent: failedParent)
            eventLoop.execute { self.claimed(decision, failure: reason) }
        }
        return true
    }

    private func claimed(_ decision: ColdStart.Decision, failure: TransferRecovery.FailureReason) {
        guard case .claiming = phase else { return }
        switch decision {
        case .upstream: fail(failure)
        case .follow(let peer):
            // From now on the request waits for another node's upstream.
            if let wait = context.coldStart?.configuration.wait, claims == 1, responseDeadline != nil {
                responseDeadline = clock.now + TimeAmount(wait)
            }
            context.logger.debug(
                "following a peer",
                metadata: ["key": "\(key)", "peer": "\(peer.id)", "offset": "\(body.plan.offset)"])
            startRace(parent: peer)
        }
    }

    private func record(_ mismatch: TransferRecovery.RecordedMismatch) {
        let (sources, digest) = (race.candidates.bodySources, body.plan.expectation.digest)
        context.directory.withStats { stats in
            for peer in sources {
                stats.recordMismatch(peer, digest: digest, isProven: mismatch == .proven, now: .now())
            }
        }
    }

    // MARK: End

    /// Ends without content: with an error response while nothing has been sent, with an incomplete body afterwards.
    private func fail(_ reason: TransferRecovery.FailureReason) {
        let missReason = race.failures.missReason(of: reason, isHeadSent: clients.isHeadWritten)
        guard !clients.isHeadWritten else {
            end(.miss(missReason))
            return clients.abort("\(reason)")
        }
        let error: DistributionError
        var fields: [(name: String, value: String)] = []
        let unsatisfiedSize = race.unsatisfiedSize
        if let unsatisfiedSize {
            error = ByteRangeError.unsatisfiable(size: unsatisfiedSize).distributionError
            fields = [("Content-Range", "\(ContentRange.unsatisfied(size: unsatisfiedSize))")]
        } else {
            error = DistributionError(
                isManifest ? .manifestUnknown : .blobUnknown, message: "\(reason)",
                detail: .object(["attempts": .integer(Int64(race.candidates.failedAttempts))]))
        }
        let followers = clients.takeFollowers()
        end(unsatisfiedSize == nil ? .miss(missReason) : .hit(bytes: 0, isVerified: false))
        clients.send(error, fields: fields)
        retryFollowers(followers)
    }

    /// Starts a transfer for each client that joined later: it has more time left than the first, and knows what this one
    /// has learned.
    private func retryFollowers(_ followers: [ClientGroup.Client]) {
        for client in followers {
            MirrorTransfer(client, loop: loop, context: context).start(coalescingAs: nil)
        }
    }

    /// Releases everything but the clients, whose responses the caller ends after this.
    ///
    /// - Parameters:
    ///   - outcome: what is counted for the clients; nil if they have disconnected.
    ///   - count: the number of clients; nil for those connected.
    private func end(_ outcome: RequestOutcome?, count: Int? = nil) {
        if case .ended = phase { return }
        if case .receiving(let source) = phase {
            race.requestEnded(source)
            source.cancel()
        }
        if case .resolving(let poll) = phase { poll.stop() }
        phase = .ended
        switch outcome {
        case .hit: clients.note(RequestLog.peerReason)
        case .miss(let reason): clients.note(reason.rawValue)
        case nil: break
        }
        clients.detach()
        stopCoalescing()
        timer.cancel()
        race.stop()
        body.end()
        record.end()
        context.metrics.ended(request.distribution, clients: count ?? clients.count, outcome)
    }

    // MARK: Time

    private func schedule() {
        timer.set([body.progressDeadline, responseDeadline].compactMap { $0 }.min())
    }

    private func timePassed() {
        guard case .receiving(let source) = phase else { return }
        let now = clock.now
        if let responseDeadline, now >= responseDeadline { return timedOut(source) }
        switch body.judgeProgress(now: now, &loop.throughput) {
        case .sufficient: schedule()
        case .slow: hedge(source)
        case .stalled:
            source.cancel()
            interrupted(source, by: .stalled)
        }
    }
}

extension MirrorTransfer: PeerRaceDelegate {
    func raceWon(by source: PeerRequest, _ head: PeerResponseHead, _ acceptance: TransferPlan.Acceptance) {
        if case .receiving(let slow) = phase { takenOver(from: slow, by: source) }
        phase = .receiving(source)
        source.delegate = self
        body.begin(
            acceptance, contentType: head.contentType, isArriving: parent != nil, now: clock.now, on: loop.eventLoop
        ) { self.receiveMore() }
        if bodyStartedAt == nil {
            bodyStartedAt = .now()
            if parent != nil { context.coldStart?.firstByte(after: .now() - arrivedAt) }
        }
        record.sourceStarted(
            source.peer, offset: body.plan.offset, totalBytes: body.plan.length, clients: clients.count)
        context.logger.debug(
            "a peer serves",
            metadata: ["key": "\(key)", "peer": "\(source.authority ?? "")", "offset": "\(body.plan.offset)"])
        if body.isHeadOnly {
            let head = body.responseHead
            context.metrics.peerCompleted(source.peer)
            end(.hit(bytes: 0, isVerified: false))
            clients.writeHead(head)
            clients.finish()
        } else if !body.isBufferedWhole, !clients.isHeadWritten {
            writeHead()
        }
    }

    func raceFailed(_ reason: RaceMachine<PeerEndpoint>.FailureReason, isCachedLookup: Bool) {
        if case .receiving = phase {
            // No other peer takes over; the next window may find one.
            isHedging = false
            return
        }
        recover(from: .raceFailed(reason, isCachedLookup: isCachedLookup, hasBody: body.hasBegun))
    }

    func raceSawLengthMismatch() { recovery.lengthMismatchSeen() }
}

extension MirrorTransfer: PeerRequestDelegate {
    private func isSource(_ request: PeerRequest) -> Bool {
        if case .receiving(let source) = phase { source === request } else { false }
    }

    func request(_ request: PeerRequest, received head: PeerResponseHead) {}

    func request(_ request: PeerRequest, received body: ByteBuffer) {
        if isSource(request) { receive(body, from: request) }
    }

    func requestReadCompleted(_ request: PeerRequest) {
        if isSource(request) { receiveMore() }
    }

    func requestCompleted(_ request: PeerRequest) {
        guard isSource(request) else { return }
        if body.plan.isComplete { bodyCompleted(by: request) } else { interrupted(request, by: .closedEarly) }
    }

    func request(_ request: PeerRequest, failed failure: PeerFailure) {
        if isSource(request) { interrupted(request, by: failure) }
    }
}

extension MirrorTransfer: ClientGroupDelegate {
    func clientsAreWritable() { receiveMore() }

    func slowClientsTimedOut() { detachSlowClients() }

    private func detachSlowClients() {
        guard case .receiving = phase else { return }
        for client in clients.takeBlocked() {
            context.logger.debug(
                "a slow client is detached from a shared transfer",
                metadata: ["key": "\(key)", "offset": "\(body.plan.offset)"])
            MirrorTransfer(client, loop: loop, context: context).adopt(state: (body, race.candidates))
        }
        receiveMore()
    }

    /// A client that has received a part of a range has been served: containerd closes connections of parallel fetches before
    /// their end. One that has received nothing counts neither as a hit nor as a miss.
    func clientsDisconnected() {
        let isServed = request.range != nil && clients.isHeadWritten
        end(isServed ? .hit(bytes: 0, isVerified: false) : nil, count: 1)
    }
}
