import Logging
import NIOCore

/// Searching the network: for providers, for our own neighbours, for keepers of our keys.
extension KademliaNode {
    /// Starts telling `id` about providers of `key` with ``KademliaAction/found(_:_:)``, then
    /// ``KademliaAction/lookupEnded(_:)``.
    ///
    /// - Parameter limit: 0 or less for all.
    mutating func lookup(_ id: LookupID, key: ContentKey, limit: Int, now: NIODeadline) {
        let position = key.position
        var local =
            lookups.isSearching(position)
            ? [] : presentProviders(of: position, now: now).filter { $0.key != self.key }
        // In the order of their announcements, every node would ask the same provider first.
        local.shuffle(using: &random)
        let (deliveries, needsSearch) = lookups.begin(
            id, key: position, limit: limit, local: local, standing: standing(at: now))
        deliver(deliveries)
        guard needsSearch else {
            statistics.lookupsShared += 1
            return
        }
        statistics.lookupsStarted += 1
        guard isOnline, queries.count < configuration.queries else {
            endLookup(position, now: now)
            return
        }
        let query = startQuery(for: .lookup, target: position, key: key.multihash, now: now)
        if queries[query] != nil { lookupQueries[position] = query }
    }

    /// The caller `id` no longer waits; a search without callers ends.
    mutating func cancelLookup(_ id: LookupID) {
        guard let position = lookups.cancel(id), let query = lookupQueries.removeValue(forKey: position) else { return }
        queries[query] = nil
    }

    func standing(at now: NIODeadline) -> (KadKey) -> PeerHealth.Standing {
        { [health, departed] in departed[$0] == nil ? health.standing(of: $0, now: now) : .left }
    }

    /// Delivers providers to the callers of a lookup; ends the search when every caller has enough.
    mutating func lookupFound(
        _ contacts: [KadContact], for position: KadKey, now: NIODeadline
    ) -> [LookupTable.Delivery] {
        let (deliveries, isSatisfied) = lookups.found(
            contacts.filter { $0.key != key && !$0.addresses.isEmpty }, for: position,
            standing: standing(at: now))
        if isSatisfied { endLookup(position, now: now) }
        return deliveries
    }

    private mutating func endLookup(_ position: KadKey, now: NIODeadline) {
        if let id = lookupQueries.removeValue(forKey: position) { queries[id] = nil }
        deliver(lookups.searchEnded(position, standing: standing(at: now)))
    }

    mutating func deliver(_ deliveries: [LookupTable.Delivery]) {
        for delivery in deliveries {
            switch delivery {
            case .provider(let id, let contact): actions.append(.found(id, contact))
            case .end(let id): actions.append(.lookupEnded(id))
            }
        }
    }

    // MARK: Running searches

    @discardableResult
    mutating func startQuery(
        for purpose: QueryPurpose, target: KadKey, key bytes: [UInt8], now: NIODeadline
    ) -> QueryID {
        let id = QueryID(number: number())
        let seeds = table.nearest(to: target, limit: configuration.k)
        var limits = configuration.query
        limits.k = configuration.k
        queries[id] = RunningQuery(
            query: IterativeQuery(target: target, own: key, seeds: seeds, limits: limits), purpose: purpose, key: bytes)
        timers.schedule(.deadline(id), at: now + configuration.queryDeadline)
        bucketRefreshed[table.bucketIndex(of: target)] = now
        pump(id, now: now)
        return id
    }

    /// Sends what the search wants to ask next, or ends it.
    mutating func pump(_ id: QueryID, now: NIODeadline) {
        guard var running = queries[id] else { return }
        queries[id] = nil
        let next = running.query.nextRequests(now: now)
        if running.query.isFinished {
            queryEnded(id, running, now: now)
            return
        }
        if !running.isStallScheduled, let stall = running.query.nextStall {
            running.isStallScheduled = true
            timers.schedule(.stalls(id), at: stall)
        }
        let message: KadMessage
        if case .lookup = running.purpose {
            message = .getProviders(running.key)
        } else {
            message = .findNode(running.key)
        }
        queries[id] = running
        for contact in next { send(message, to: knownContact(contact), for: .query(id)) }
    }

    mutating func queryAnswered(
        _ id: QueryID, by contact: KadContact, from remote: IPAddress?, _ answer: KadMessage, now: NIODeadline
    ) {
        guard let running = queries[id] else { return }
        if case .lookup = running.purpose, !answer.providerPeers.isEmpty {
            let position = running.query.target
            if !running.hasFoundProvider, answer.providerPeers.contains(where: { $0.key != key }) {
                queries[id]?.hasFoundProvider = true
                Statistics.count(running.query.depth(of: contact.key), in: &statistics.firstProviderDepths)
            }
            // What a peer has said of itself counts more than what others say of it.
            var providers = answer.providerPeers.map { provider -> KadContact in
                guard let addresses = firstHandAddresses(of: provider.key) else { return provider }
                return KadContact(id: provider.id, key: provider.key, addresses: addresses)
            }
            providers.shuffle(using: &random)
            deliver(lookupFound(providers, for: position, now: now))
            guard queries[id] != nil else { return }
        }
        // Nobody is asked on hearsay whose absence we have seen ourselves.
        let closer = answer.closerPeers.filter { peer in
            departed[peer.key] == nil && health.standing(of: peer.key, now: now) != .gone
                && (!peer.addresses.isEmpty || connections[peer.key] != nil || table.contains(peer.key))
        }
        let source = source(of: contact, remote: remote)
        queries[id]?.query.answered(contact.key, source: source, closer: closer)
        pump(id, now: now)
    }

    private mutating func queryEnded(_ id: QueryID, _ running: RunningQuery, now: NIODeadline) {
        let result = running.query.result
        measureNetwork(target: running.query.target, result: result)
        switch running.purpose {
        case .lookup:
            if !running.hasFoundProvider { Statistics.count(running.query.depth, in: &statistics.missDepths) }
            endLookup(running.query.target, now: now)
        case .provide(let content):
            provideQueries[id] = nil
            keepersFound(for: content, result, sawEverybody: running.query.sawEverybody, now: now)
        case .selfLookup:
            isSelfLookupRunning = false
            let isFirst = lastSelfLookup == nil
            if result.isEmpty {
                // Says nothing about the network, and until there is a result nothing is announced.
                if isOnline { scheduleSelfLookup(after: configuration.selfLookupRetry, now: now) }
            } else {
                networkIsSmall = result.count < configuration.k
                lastSelfLookup = now
                if isFirst { log(.info, "joined the network", ["peers": "\(table.count)"]) }
                refreshNextBucket(now: now)
            }
            pumpAnnouncements(now: now)
        case .refresh:
            refreshNextBucket(now: now)
        }
    }

    // MARK: Keeping the table full

    mutating func startSelfLookup(now: NIODeadline) {
        guard isOnline, !isSelfLookupRunning else { return }
        isSelfLookupRunning = true
        startQuery(for: .selfLookup, target: key, key: local.bytes, now: now)
    }

    /// Looks into the shallowest bucket no search came by for long; one after the other, not all at once.
    private mutating func refreshNextBucket(now: NIODeadline) {
        // In a small network the search for our own position has asked everybody.
        guard !networkIsSmall, let deepest = table.deepestBucket else { return }
        for bucket in 0...min(deepest, 15) where bucket < table.buckets.count {
            // Deep buckets hold our neighbours, which the search for our own position finds.
            let isNearby = table.buckets[bucket...].reduce(0) { $0 + $1.count } < configuration.k
            if isNearby { return }
            if let last = bucketRefreshed[bucket], now - last < configuration.refreshInterval { continue }
            bucketRefreshed[bucket] = now
            guard let target = targetInBucket(bucket) else { continue }
            startQuery(for: .refresh(bucket: bucket), target: KadKey(hashing: target), key: target, now: now)
            return
        }
    }

    /// Bytes whose position lies in a bucket: a member's ID, or for an empty bucket whatever is found by trying.
    private mutating func targetInBucket(_ bucket: Int) -> [UInt8]? {
        if let member = table.buckets[bucket].randomElement(using: &random) { return member.contact.id.bytes }
        guard bucket <= 8 else { return nil }
        for _ in 0..<8192 {
            var candidate: [UInt8] = [0x12, 0x20]
            for _ in 0..<4 {
                withUnsafeBytes(of: random.next()) { candidate.append(contentsOf: $0) }
            }
            if table.bucketIndex(of: KadKey(hashing: candidate)) == bucket { return candidate }
        }
        return nil
    }

    /// Estimates how many nodes there are from how densely they lie around a target.
    private mutating func measureNetwork(target: KadKey, result: [KadContact]) {
        guard let farthest = result.last else { return }
        let fraction = farthest.key.distance(to: target).fraction
        let isAll = result.count < configuration.k || fraction <= 0
        let sample = isAll ? 1 / Double(result.count + 1) : fraction / Double(result.count)
        nodeSpacing = nodeSpacing.map { 0.75 * $0 + 0.25 * sample } ?? sample
    }
}
