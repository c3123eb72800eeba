import Metrics
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// Who has it, whom to ask, and which of those asked won.
extension MirrorExchange {
    // MARK: Finding

    /// Looks for a peer that begins the transfer or carries it on.
    func startRace(patience: Duration) {
        phase = .racing
        self.patience = patience
        let directory = context.directory
        let digest = request.distribution.digest
        race = RaceMachine(
            limits: .init(
                attempts: configuration.resolveRetries,
                deadline: clients.isHeadWritten ? nil : deadline)
        ) { peer in
            directory.withScoreboard { scoreboard in
                if case .eligible(let rank) = scoreboard.standing(of: peer, for: digest, now: .now()) {
                    rank
                } else {
                    .max
                }
            }
        }
        unsubscribe()
        let known = context.finder.find(
            key,
            PeerFinder.Subscriber(
                eventLoop: loop.eventLoop, began: { self.lookupBegan(patience) }, found: { self.found([$0]) },
                ended: { self.lookupEnded() }))
        subscription = known.isComplete ? nil : known.subscription
        usesOldLookup = known.isComplete && !known.peers.isEmpty
        if !known.isQueued { lookupBegan(patience) }
        found(known.peers)
        if known.isComplete { lookupEnded() }
        schedule()
    }

    func lookupBegan(_ patience: Duration) {
        guard case .racing = phase else { return }
        race.lookupBegan(deadline: clock.now + TimeAmount(patience))
        schedule()
    }

    func found(_ found: [Peer]) {
        guard case .racing = phase, !found.isEmpty else { return }
        resolved()
        let (digest, now, localPeer) = (request.distribution.digest, NIODeadline.now(), context.router.localPeer.id)
        let directory = context.directory
        let eligible = directory.withScoreboard { scoreboard in
            found.filter { peer in
                peer.id != localPeer && !peer.addresses.isEmpty
                    && scoreboard.standing(of: peer.id, for: digest, now: now) != .excluded
            }
        }.filter { !distrusted.contains($0.id) }
        for peer in eligible { peers[peer.id] = peer }
        let actions = race.found(eligible.map(\.id), now: clock.now, hedgeDelay: hedgeDelay) { peer in
            if brokeOff.contains(peer) { return .asALastResort }
            return directory.withScoreboard { $0.isPenalised(peer, now: now) } ? .reluctantly : .gladly
        }
        perform(actions)
    }

    func lookupEnded() {
        subscription = nil
        guard case .racing = phase else { return }
        perform(race.lookupFinished(now: clock.now, hedgeDelay: hedgeDelay))
    }

    func resolved() {
        guard !isResolved else { return }
        isResolved = true
        context.metrics.resolved(after: .now() - startedAt)
    }

    func hedgeDelay(_ concurrent: Int) -> TimeAmount {
        loop.latency.hedgeDelay(concurrent: concurrent, now: .now())
    }

    func unsubscribe() {
        if let subscription { context.finder.forget(subscription, key: key) }
        subscription = nil
    }

    // MARK: Racing

    func perform(_ actions: [RaceMachine<PeerID>.Action]) {
        for action in actions {
            switch action {
            case .start(let id, let peer): startAttempt(id, peer)
            case .cancel(let id): remove { $0.id == id }?.exchange.cancel()
            case .win(let id, _): won(id)
            case .giveUp(let defeat): gaveUp(defeat)
            }
        }
        schedule()
    }

    func startAttempt(_ id: RaceMachine<PeerID>.AttemptID, _ peerID: PeerID) {
        guard let peer = peers[peerID] else { return }
        if !attempts.isEmpty { context.metrics.hedges.increment() }
        context.metrics.attempts.increment()
        let isUrgent = peers.count - failedAttempts <= 1 || !race.hasWaiting
        let exchange = PeerExchange(
            PeerExchange.Request(
                uri: request.distribution.uri, isHead: request.isHead, range: plan.nextRange?.description,
                authorization: context.authorization),
            to: peer, isUrgent: isUrgent, pool: loop.pool, configuration: configuration.peers, clock: clock,
            delegate: self)
        attempts.append(Attempt(id: id, exchange: exchange, startedAt: clock.now))
        context.directory.withScoreboard { $0.began(peerID, now: .now()) }
        exchange.start()
    }

    func remove(_ matches: (Attempt) -> Bool) -> Attempt? {
        guard let index = attempts.firstIndex(where: matches) else { return nil }
        let attempt = attempts.remove(at: index)
        let peer = attempt.exchange.peer.id
        context.directory.withScoreboard { $0.ended(peer, now: .now()) }
        return attempt
    }

    /// An attempt came to nothing.
    func fail(_ exchange: PeerExchange, _ failure: RaceMachine<PeerID>.Failure, reason: String) {
        guard let attempt = remove({ $0.exchange === exchange }) else { return }
        let now = clock.now
        context.metrics.peerFailed(reason)
        if failure != .unreached {
            loop.latency.record(now - (exchange.sentAt ?? attempt.startedAt), now: .now())
        }
        failedAttempts += 1
        perform(race.failed(attempt.id, failure, now: now, hedgeDelay: hedgeDelay))
    }

    func won(_ id: RaceMachine<PeerID>.AttemptID) {
        guard let index = attempts.firstIndex(where: { $0.id == id }), let acceptance = attempts[index].acceptance
        else {
            return
        }
        unsubscribe()
        begin(acceptance, from: attempts[index].exchange)
    }

    func gaveUp(_ defeat: RaceMachine<PeerID>.Defeat) {
        // What the lookup found was of no use; the next request shall not be told the same.
        if defeat == .exhausted || usesOldLookup { context.finder.invalidate(key) }
        resolved()
        // Somebody else may have it since then, so that it is looked up once more.
        if defeat != .deadline, usesOldLookup { return startRace(patience: patience) }
        if defeat != .deadline, !contributors.isEmpty, restartsForLackOfProgress() { return }
        switch defeat {
        case .noPeers: finishWithout("no peer has it")
        case .exhausted: finishWithout("no peer could give it")
        case .deadline: finishWithout("no peer gave it in time")
        }
    }
}
