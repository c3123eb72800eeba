import DequeModule
import Logging
import Metrics
import NIOCore
import NIOHTTP1
import OCIDistribution
import PeerRoutingCore

/// A request for content that peers may have, of one client or of several that ask for the same: drives the race, the
/// transfer and the check.
///
/// Confined to the event loop of the clients' connections; `Sendable` only so that it can be carried back there. It is
/// kept alive by its clients' response writers until it has ended.
final class MirrorExchange: @unchecked Sendable {
    struct Attempt {
        let id: RaceMachine<PeerID>.AttemptID
        let exchange: PeerExchange
        let startedAt: NIODeadline
        var acceptance: TransferPlan.Acceptance?
    }

    enum Phase {
        case racing
        case transferring(PeerExchange)
        /// The body is complete and its digest is being computed.
        case checking
        case done
    }

    let context: MirrorContext
    let loop: MirrorLoop
    let request: MissRequest
    let clients: ClientGroup
    let key: String
    let isManifest: Bool
    /// Deadlines are kept by this clock, which stands still while this process could not act.
    let clock: RequestClock
    let startedAt: NIODeadline

    var phase = Phase.racing
    var plan: TransferPlan
    var race: RaceMachine<PeerID>
    var attempts: [Attempt] = []
    var peers: [PeerID: Peer] = [:]
    var subscription: UInt64?
    /// Whether the peers of this race are what an earlier lookup found, which may no longer be all there are.
    var usesOldLookup = false
    /// How long the lookup of this race may take.
    var patience: Duration = .zero
    var isResolved = false
    var deadline: NIODeadline?
    var timer: (scheduled: Scheduled<Void>, at: NIODeadline)?

    var monitor: ProgressMonitor?
    var holdBack: HoldBack?
    var lane: HashLane?
    /// The digest to check against: the one asked for, or the one the peer states for a tag.
    var digest: Digest?
    var reserved = 0
    var isCounted = false
    /// Whether others who ask for the same are still taken in.
    var isShared = false
    /// Until when a client that cannot take more is waited for, while others can.
    var clientTimer: RequestTimer?
    /// Peers whose bytes are part of the body.
    var contributors: [PeerID] = []
    /// Peers that gave, or helped to give, wrong bytes.
    var distrusted: Set<PeerID> = []
    /// Those that began to give the bytes and did not go on. They answer as quickly as the first time, so that they are
    /// asked again only when there is nobody else.
    var brokeOff: Set<PeerID> = []
    var fruitlessResumes = 0
    var offsetAtBreak: Int64 = 0
    var restarts = 0
    /// Whether a peer that could have carried on says that the content has another length.
    var sawOtherLength = false
    var failedAttempts = 0
    var unsatisfiedSize: Int64?
    var manifestType = MediaType.imageManifest.rawValue

    /// - Parameter client: counted among the transfers at the same time by ``MirrorContext/admit()``.
    init(_ client: ClientGroup.Client, loop: MirrorLoop, context: MirrorContext) {
        let request = client.request
        self.request = request
        self.loop = loop
        self.context = context
        clients = ClientGroup(client) { context.leave() }
        startedAt = client.arrivedAt
        clock = context.makeClock(on: loop.eventLoop)
        key = request.distribution.lookupKey ?? ""
        if case .manifest = request.distribution.kind { isManifest = true } else { isManifest = false }
        digest = request.distribution.digest
        plan = TransferPlan(
            wanted: request.range.map { .range($0) } ?? .whole,
            expectation: .init(
                digest: request.distribution.digest, isManifest: isManifest, isHead: request.isHead))
        race = RaceMachine(
            limits: .init(attempts: 1), rank: { _ in 0 })
    }

    var configuration: MirrorConfiguration { context.configuration }

    /// Begins. Called once.
    ///
    /// - Parameter isShared: whether others who ask for the same are taken in.
    func start(isShared: Bool) {
        clients.delegate = self
        guard !key.isEmpty else { return finishWithout("nothing to look up") }
        let limit = request.isHead || isManifest ? configuration.manifestTimeout : configuration.blobTimeout
        deadline = clock.now + TimeAmount(limit) - (NIODeadline.now() - startedAt)
        if isShared { self.isShared = loop.share(self) }
        startRace(patience: configuration.resolveTimeout)
    }

    // MARK: Ending

    /// Ends without content: a `404` while nothing has been sent, a broken body afterwards.
    func finishWithout(_ reason: String) {
        if case .done = phase { return }
        guard !clients.isHeadWritten else { return breakOff(reason) }
        let error: DistributionError
        var fields: [(name: String, value: String)] = []
        let isUnsatisfiable = unsatisfiedSize != nil
        if let size = unsatisfiedSize {
            error = ByteRangeError.unsatisfiable(size: size).distributionError
            fields = [("Content-Range", "\(ContentRange.unsatisfied(size: size))")]
        } else {
            error = DistributionError(
                isManifest ? .manifestUnknown : .blobUnknown, message: reason,
                detail: .object(["attempts": .integer(Int64(failedAttempts))]))
        }
        let followers = clients.takeFollowers()
        end(isHit: isUnsatisfiable)
        clients.send(error, fields: fields)
        continueAlone(followers)
    }

    func breakOff(_ reason: String) {
        end(isHit: false)
        clients.abort(reason)
    }

    func complete() {
        end(isHit: true)
    }

    /// Lets everything go but the clients, whose responses are finished by the caller, after this.
    func end(isHit: Bool?) {
        if case .done = phase { return }
        phase = .done
        clients.delegate = nil
        closeToOthers()
        timer?.scheduled.cancel()
        timer = nil
        clientTimer?.cancel()
        clientTimer = nil
        unsubscribe()
        _ = race.cancel()
        for attempt in attempts {
            let peer = attempt.exchange.peer.id
            context.directory.withScoreboard { $0.ended(peer, now: .now()) }
            attempt.exchange.cancel()
        }
        attempts = []
        dropBody()
        if isCounted {
            isCounted = false
            context.memory.endStream()
            context.metrics.activeTransfers.decrement()
        }
        if let isHit {
            context.metrics.requests(clients.count, registry: request.distribution.registry, isHit: isHit)
        }
    }

    func dropBody() {
        lane?.cancel()
        lane = nil
        holdBack = nil
        monitor = nil
        context.memory.held.release(reserved)
        reserved = 0
    }

    // MARK: Time

    /// One timer serves all deadlines. It is only set anew when it would be late; when it is early it sets itself anew.
    func schedule() {
        let next: NIODeadline?
        switch phase {
        case .racing: next = race.nextDeadline
        case .transferring: next = [monitor?.deadline, deadline].compactMap { $0 }.min()
        case .checking, .done: next = nil
        }
        guard let next else { return }
        if let timer, timer.at <= next { return }
        timer?.scheduled.cancel()
        let wait = max(next - clock.now, RequestClock.shortestWait)
        let scheduled = loop.eventLoop.scheduleTask(in: wait) { self.timePassed() }
        timer = (scheduled, next)
    }

    func timePassed() {
        timer = nil
        let now = clock.now
        switch phase {
        case .racing:
            perform(race.timePassed(now: now, hedgeDelay: hedgeDelay))
        case .transferring(let exchange):
            if let deadline, now >= deadline { return finishWithout("no peer gave it in time") }
            let window = monitor?.deadline
            if monitor?.hasStalled(now: now) ?? false {
                exchange.cancel()
                return resume(after: .stalled, exchange)
            }
            // Only a window in which enough came is a sign of progress.
            if monitor?.deadline != window { clock.renew() }
            schedule()
        case .checking, .done:
            break
        }
    }
}
