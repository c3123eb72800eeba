import Logging
import NIOCore

/// Who gets into the routing table, and who is put out.
extension KademliaNode {
    /// A connection to `peer` was authenticated and identified, or the peer said something new about itself
    /// (`isPush`).
    mutating func identified(
        _ peer: PeerID, addresses: [Multiaddr], remote: IPAddress? = nil, speaksKademlia: Bool, isPush: Bool = false,
        now: NIODeadline
    ) {
        guard peer != local else { return }
        let contact = KadContact(id: peer, addresses: addresses)
        // A peer that restarts connects anew before the connection of its former life is seen to be dead.
        let isNewConnection = !isPush || connections[contact.key] == nil
        connections[contact.key] = Connection(contact: contact, speaksKademlia: speaksKademlia, remote: remote)
        store.setAddresses(addresses, of: contact.key, now: now)
        guard speaksKademlia else {
            // A node that no longer offers the protocol, or is about to leave.
            if removeMember(contact.key) {
                statistics.evictions += 1
                log(.debug, "peer no longer speaks Kademlia", ["peer": "\(peer)"])
                noteConnectivity()
            }
            return
        }
        if isNewConnection {
            departed[contact.key] = nil
            health.reset(contact.key)
        }
        if table.contains(contact.key) {
            table.heard(from: contact.key, now: now)
            table.setAddresses(addresses, of: contact.key)
            if isNewConnection { audit(contact) }
        } else {
            check(contact, now: now)
        }
    }

    /// The last connection to `peer` is gone.
    mutating func disconnected(_ peer: PeerID, now: NIODeadline) {
        let position = KadKey(hashing: peer.bytes)
        guard let connection = connections.removeValue(forKey: position) else { return }
        guard let entry = table[position], departed[position] == nil else { return }
        // An idle connection that was closed and a node that died look the same: ask, but not again and again.
        if let last = probedAt[position], now - last < .minutes(5) { return }
        probedAt[position] = now
        if probedAt.count > 4096 { probedAt = probedAt.filter { now - $0.value < .minutes(5) } }
        var contact = entry.contact
        if contact.addresses.isEmpty { contact.addresses = connection.contact.addresses }
        let delay = TimeAmount.milliseconds(Int64(50 + 950 * random.fraction()))
        timers.schedule(.probe(contact), at: now + delay)
    }

    /// `peer` announced, on an authenticated connection, that it is about to stop.
    mutating func peerLeft(_ peer: PeerID, now: NIODeadline) {
        let position = KadKey(hashing: peer.bytes)
        if departed.count >= 4096 { departed = departed.filter { $0.value > now } }
        if departed.count < 4096 { departed[position] = now + configuration.store.validity }
        store.removeAll(of: position)
        connections[position]?.speaksKademlia = false
        dropOutbox(of: position, now: now)
        if removeMember(position) { noteConnectivity() }
        log(.debug, "peer left", ["peer": "\(peer)"])
    }

    /// Asks a peer that wants into the table whether it serves.
    private mutating func check(_ contact: KadContact, now: NIODeadline) {
        guard table.hasRoom(for: contact.key, from: source(of: contact), now: now),
            checking.count < configuration.checks,
            checking.insert(contact.key).inserted
        else { return }
        // The answer is of use as well: it names our neighbours.
        send(.findNode(local.bytes), to: contact, for: .check)
    }

    /// `contact` answered a request on an authenticated connection.
    ///
    /// - Parameter remote: The address the answer came from.
    mutating func noteAlive(_ contact: KadContact, from remote: IPAddress?, now: NIODeadline) {
        var known = contact
        if let connection = connections[contact.key] {
            guard connection.speaksKademlia else { return }
            if !connection.contact.addresses.isEmpty { known.addresses = connection.contact.addresses }
        }
        guard departed[contact.key] == nil else { return }
        let admission = table.admit(known, from: source(of: known, remote: remote), now: now)
        switch admission {
        case .added, .replaced:
            if case .replaced(let victim) = admission { actions.append(.memberChanged(victim, isMember: false)) }
            actions.append(.memberChanged(contact.id, isMember: true))
            formerPeers.remove(contact.key)
            noteConnectivity()
            peerJoined(known, now: now)
        case .updated, .full:
            break
        }
    }

    private mutating func peerJoined(_ contact: KadContact, now: NIODeadline) {
        announceEverything(to: contact, now: now)
        if lastSelfLookup == nil {
            startSelfLookup(now: now)
        } else if table.count < configuration.k || table.bucketIndex(of: contact.key) >= table.deepestBucket ?? 0 {
            scheduleSelfLookup(after: .seconds(5), now: now)
        }
        pumpAnnouncements(now: now)
    }

    /// A connection or a request to `contact` failed.
    mutating func peerFailed(_ contact: KadContact, now: NIODeadline) {
        health.unreachable(contact.key, now: now)
        guard let entry = table[contact.key] else { return }
        removeMember(contact.key)
        statistics.evictions += 1
        log(.debug, "peer unreachable", ["peer": "\(contact.id)"])
        if formerPeers.count < configuration.formerPeers, formerPeers.insert(contact.key).inserted {
            scheduleRetry(entry.contact, attempt: 0, now: now)
        }
        noteConnectivity()
    }

    /// The mirror could not fetch from `peer`: demote it, and see for ourselves.
    mutating func reportUnreachable(_ peer: PeerID, now: NIODeadline) {
        let contact = knownContact(KadContact(id: peer))
        guard contact.key != key else { return }
        health.fetchFailed(contact.key, now: now)
        probe(contact, attempt: nil, now: now)
    }

    /// Takes a peer out of the routing table; false when it was not in.
    @discardableResult
    private mutating func removeMember(_ position: KadKey) -> Bool {
        guard let entry = table[position] else { return false }
        table.remove(position)
        actions.append(.memberChanged(entry.contact.id, isMember: false))
        return true
    }

    /// What limits per source count a peer under: where it was met, or for one that was not yet, where it is said to be.
    func source(of contact: KadContact, remote: IPAddress? = nil) -> IPAddress? {
        let met = remote ?? connections[contact.key]?.remote
        if met == nil, let entry = table[contact.key] { return entry.source }
        return (met ?? contact.addresses.lazy.compactMap(\.ipAddress).first).flatMap(configuration.query.source)
    }

    /// What we know of a peer's addresses from itself: of a connection, or from the time it came into the table; nil when
    /// others alone speak of it.
    func firstHandAddresses(of position: KadKey) -> [Multiaddr]? {
        if let connection = connections[position], !connection.contact.addresses.isEmpty {
            return connection.contact.addresses
        }
        guard let entry = table[position], !entry.contact.addresses.isEmpty else { return nil }
        return entry.contact.addresses
    }

    /// The best we know of a peer's addresses.
    func knownContact(_ contact: KadContact) -> KadContact {
        if let connection = connections[contact.key], !connection.contact.addresses.isEmpty {
            return connection.contact
        }
        if contact.addresses.isEmpty, let entry = table[contact.key] { return entry.contact }
        return contact
    }

    // MARK: Looking after the table

    /// - Returns: False when the peer is not asked: it has left, is being asked, or too many are.
    @discardableResult
    mutating func probe(_ contact: KadContact, attempt: Int?, now: NIODeadline) -> Bool {
        guard departed[contact.key] == nil, probing.count < configuration.checks,
            probing.insert(contact.key).inserted
        else { return false }
        send(.findNode(local.bytes), to: knownContact(contact), for: .probe(attempt: attempt))
        return true
    }

    mutating func scheduleRetry(_ contact: KadContact, attempt: Int, now: NIODeadline) {
        guard attempt < configuration.formerPeerRetries.count else {
            formerPeers.remove(contact.key)
            return
        }
        let wait = random.jittered(configuration.formerPeerRetries[attempt].nanoseconds, spread: 0.2)
        timers.schedule(.retry(contact, attempt: attempt), at: now + .nanoseconds(wait))
    }

    mutating func retryFormerPeer(_ contact: KadContact, attempt: Int, now: NIODeadline) {
        guard formerPeers.contains(contact.key) else { return }
        if table.contains(contact.key) || departed[contact.key] != nil {
            formerPeers.remove(contact.key)
        } else if !probe(contact, attempt: attempt + 1, now: now) {
            scheduleRetry(contact, attempt: attempt + 1, now: now)
        }
    }

    mutating func noteConnectivity() {
        guard isOnline != wasOnline else { return }
        wasOnline = isOnline
        actions.append(.connectivityChanged(isOnline: isOnline))
    }

    /// The regular round: silent entries are asked, own neighbours sought, then buckets filled.
    mutating func refresh(now: NIODeadline) {
        let wait = random.jittered(configuration.refreshInterval.nanoseconds, spread: 0.1)
        timers.schedule(.refresh, at: now + .nanoseconds(wait))
        // Checked one after the other over the next minute, not in a burst.
        let silent = table.silent(since: now - configuration.silence)
        for entry in silent {
            let delay = Int64(random.fraction() * Double(TimeAmount.minutes(1).nanoseconds))
            timers.schedule(.probe(entry.contact), at: now + .nanoseconds(delay))
        }
        recheckOutsiders(now: now)
        departed = departed.filter { $0.value > now }
        startSelfLookup(now: now)
    }

    /// Connected peers that are not in the table get another chance: the check may have failed by accident.
    mutating func recheckOutsiders(now: NIODeadline) {
        let outsiders = connections.values.filter { $0.speaksKademlia && !table.contains($0.contact.key) }
        for contact in outsiders.map(\.contact).sorted(by: { $0.key < $1.key }) { check(contact, now: now) }
    }

    mutating func scheduleSelfLookup(after delay: TimeAmount, now: NIODeadline) {
        guard !isSelfLookupScheduled else { return }
        isSelfLookupScheduled = true
        timers.schedule(.selfLookup, at: now + .nanoseconds(random.jittered(delay.nanoseconds, spread: 0.2)))
    }

    mutating func sweep(now: NIODeadline) {
        store.sweepPortion(now: now)
        isSweeping = store.count > 0
        if isSweeping { timers.schedule(.sweep, at: now + .seconds(10)) }
    }
}
