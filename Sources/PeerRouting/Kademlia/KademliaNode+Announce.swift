import NIOCore

/// Keeping our keys announced at the peers nearest to them.
extension KademliaNode {
    /// Adds keys to the set that is kept announced.
    ///
    /// - Throws: ``PeerRouterError/tooManyKeys(limit:)``, having added none.
    mutating func advertise(_ keys: [ContentKey], now: NIODeadline) throws(PeerRouterError) {
        guard !hasLeft else { throw .stopped }
        let new = keys.count { !schedule.contains($0.position) }
        guard schedule.count + new <= configuration.ownKeys else { throw .tooManyKeys(limit: configuration.ownKeys) }
        for key in keys { _ = schedule.add(key, now: now) }
        pumpAnnouncements(now: now)
    }

    /// Takes keys out of the set. The records others hold expire by themselves: the protocol cannot recall them.
    mutating func withdraw(_ keys: [ContentKey]) {
        for key in keys { _ = schedule.remove(key.position) }
    }

    /// Stops announcing and no longer names itself as a provider.
    ///
    /// - Returns: The connected peers, who should be told.
    mutating func leave() -> [KadContact] {
        hasLeft = true
        return connections.values.map(\.contact)
    }

    /// How far apart nodes lie on average, as a fraction of the key space.
    private var spacing: Double { nodeSpacing ?? 1 }

    /// Goes on with what is due, as far as there is somebody to announce to.
    mutating func pumpAnnouncements(now: NIODeadline) {
        guard !hasLeft else { return }
        guard isOnline, hasLookedAround else {
            // The set is kept; everything overdue is announced when somebody is there again.
            for key in unassigned {
                announcements[key.position] = nil
                schedule.putBack(key.position, now: now)
            }
            unassigned = []
            return
        }
        takeDueKeys(now: now)
        assignKeys(now: now)
        flushOutboxes(now: now)
        guard announcements.count < configuration.keysInFlight, let due = schedule.nextDue() else { return }
        if provideTimer.map({ due < $0 }) ?? true {
            provideTimer = due
            timers.schedule(.provide, at: due)
        }
    }

    private mutating func takeDueKeys(now: NIODeadline) {
        let room = configuration.keysInFlight - announcements.count
        guard room > 0 else { return }
        let due = schedule.takeDue(now: now, limit: room)
        guard !due.isEmpty else { return }
        for key in due { announcements[key.position] = Announcement() }
        unassigned += due
        unassigned.sort { $0.position < $1.position }
    }

    /// Finds the keepers of the keys that have none yet: from the table when it is the whole network, from what a
    /// search has just shown of the neighbourhood, else by a search.
    private mutating func assignKeys(now: NIODeadline) {
        guard !unassigned.isEmpty else { return }
        coverages.removeAll { $0.expires <= now }
        let knowsAll = networkIsSmall && table.count < configuration.k
        var waiting: [ContentKey] = []
        for key in unassigned {
            if knowsAll {
                assign(
                    key.position,
                    to: table.nearest(
                        to: key.position, limit: configuration.k, perSource: configuration.query.peersPerSource),
                    now: now)
            } else if let coverage = coverages.last(where: { $0.covers(key.position) }) {
                assign(key.position, to: coverage.nearest(to: key.position, k: configuration.k), now: now)
            } else if provideQueries.count < configuration.provideQueries, !isBeingExplored(key.position) {
                let id = startQuery(for: .provide(key), target: key.position, key: key.multihash, now: now)
                if queries[id] != nil { provideQueries[id] = key.position }
            } else {
                waiting.append(key)
            }
        }
        unassigned = waiting
    }

    /// Whether a search under way will probably show the keepers of the key as well.
    private func isBeingExplored(_ position: KadKey) -> Bool {
        let radius = Double(configuration.k) * spacing / 2
        return provideQueries.values.contains { position.distance(to: $0).fraction < radius }
    }

    /// A search for the keepers of `key` has ended.
    mutating func keepersFound(
        for key: ContentKey, _ keepers: [KadContact], sawEverybody: Bool, now: NIODeadline
    ) {
        if !keepers.isEmpty {
            coverages.append(
                NetworkCoverage(
                    origin: key.position, peers: keepers, k: configuration.k, sawEverybody: sawEverybody,
                    expires: now + .seconds(60)))
            if coverages.count > 32 { coverages.removeFirst() }
        }
        assign(key.position, to: keepers, now: now)
        // The caller may be in the middle of assigning: go on when it has finished.
        provideTimer = now
        timers.schedule(.provide, at: now)
    }

    private mutating func assign(_ position: KadKey, to keepers: [KadContact], now: NIODeadline) {
        guard announcements[position] != nil else { return }
        guard !keepers.isEmpty else {
            announcements[position] = nil
            schedule.completed(position, reached: 0, now: now, jitter: random.fraction())
            return
        }
        announcements[position]?.outstanding = keepers.count
        for keeper in keepers { enqueue(position, for: keeper, isExtra: false) }
    }

    private mutating func enqueue(_ position: KadKey, for contact: KadContact, isExtra: Bool) {
        outboxes[contact.key, default: Outbox(contact: contact)].positions.append(position)
        outboxes[contact.key]?.isExtra.append(isExtra)
    }

    /// Sends what waits, to as many peers at once as allowed.
    private mutating func flushOutboxes(now: NIODeadline) {
        guard batches.count < configuration.provideBatches else { return }
        // Sorted, here and elsewhere, as a dictionary's order differs from run to run.
        for peer in outboxes.keys.sorted() where batches.count < configuration.provideBatches {
            guard let outbox = outboxes[peer], outbox.inFlight == 0 else { continue }
            let count = min(outbox.positions.count, configuration.batchSize)
            let keys = outbox.positions.prefix(count).compactMap { schedule.key(at: $0) }
            guard !keys.isEmpty else {
                // All withdrawn meanwhile.
                outboxes[peer]?.inFlight = count
                settle(peer, succeeded: false, now: now)
                continue
            }
            let id = BatchID(number: number())
            batches[id] = peer
            outboxes[peer]?.inFlight = count
            statistics.recordsSent += UInt64(keys.count)
            actions.append(.provide(id, knownContact(outbox.contact), keys))
        }
    }

    /// A batch ended: all of it was taken, or `failure`.
    mutating func batchFinished(_ id: BatchID, failure: KademliaFailure?, now: NIODeadline) {
        guard let peer = batches.removeValue(forKey: id), let contact = outboxes[peer]?.contact else { return }
        settle(peer, succeeded: failure == nil, now: now)
        switch failure {
        case nil:
            health.alive(peer)
            table.heard(from: peer, now: now)
        case .unreachable:
            peerFailed(contact, now: now)
            dropOutbox(of: peer, now: now)
        case .refused, .local:
            dropOutbox(of: peer, now: now)
        }
        pumpAnnouncements(now: now)
    }

    /// Counts the outcome for the keys of the batch to `peer`, and forgets them.
    private mutating func settle(_ peer: KadKey, succeeded: Bool, now: NIODeadline) {
        guard var outbox = outboxes[peer] else { return }
        let count = outbox.inFlight
        let settled = Array(zip(outbox.positions.prefix(count), outbox.isExtra.prefix(count)))
        outbox.positions.removeFirst(count)
        outbox.isExtra.removeFirst(count)
        outbox.inFlight = 0
        outboxes[peer] = outbox.positions.isEmpty ? nil : outbox
        for (position, isExtra) in settled where !isExtra {
            guard var announcement = announcements[position] else { continue }
            announcement.outstanding -= 1
            if succeeded { announcement.reached += 1 }
            announcements[position] = announcement
            if announcement.outstanding <= 0 {
                announcements[position] = nil
                schedule.completed(position, reached: announcement.reached, now: now, jitter: random.fraction())
            }
        }
    }

    /// Gives up everything that waits for a peer that is not there.
    mutating func dropOutbox(of peer: KadKey, now: NIODeadline) {
        guard let outbox = outboxes[peer], outbox.inFlight == 0 else { return }
        outboxes[peer]?.inFlight = outbox.positions.count
        settle(peer, succeeded: false, now: now)
    }

    // MARK: Newcomers

    /// Gives a peer that has just come, or come back without its memory, the records it is a keeper of.
    mutating func announceEverything(to contact: KadContact, now: NIODeadline) {
        guard !hasLeft, schedule.count > 0 else { return }
        let queued = Set(outboxes[contact.key]?.positions ?? [])
        // Those being announced at this moment were given to the keepers known when that began.
        let underWay = announcements.lazy.filter { $0.value.outstanding > 0 }.map(\.key)
        for position in Set(schedule.provided).union(underWay).sorted() where !queued.contains(position) {
            if isKeeper(contact.key, of: position) { enqueue(position, for: contact, isExtra: true) }
        }
        flushOutboxes(now: now)
    }

    /// Asks a peer that came back for one of our records: one that restarted has lost them.
    mutating func audit(_ contact: KadContact) {
        guard !hasLeft else { return }
        let nearest = schedule.provided.min { $0.distance(to: contact.key) < $1.distance(to: contact.key) }
        guard let nearest, isKeeper(contact.key, of: nearest), let key = schedule.key(at: nearest) else { return }
        send(.getProviders(key.multihash), to: contact, for: .audit(nearest))
    }

    /// Whether, by what we know, a peer is among the nearest to a position.
    private func isKeeper(_ peer: KadKey, of position: KadKey) -> Bool {
        if networkIsSmall, table.count <= configuration.k { return true }
        // The table knows little of regions far away, where anybody would seem near.
        let radius = 2 * Double(configuration.k) * spacing
        guard peer.distance(to: position).fraction <= radius else { return false }
        return table.nearest(to: position, limit: configuration.k).contains { $0.key == peer }
    }
}
