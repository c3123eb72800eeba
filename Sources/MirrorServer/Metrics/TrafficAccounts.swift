/// The counts of a ``TrafficLedger``: totals, history, registries, images and peers, each limited.
///
/// A value type without I/O; times are seconds since 1970.
struct TrafficAccounts: Sendable {
    struct Limits: Sendable {
        /// Registries counted by name; further ones are counted as `other`.
        var registries = 150
        /// Images counted by name. Beyond it the one that was not used for longest is added to `other`.
        var images = 512
        /// Peers. Beyond it the one that was not used for longest is dropped.
        var peers = 512
        /// Peers of one image of which the bytes are kept. Beyond it the one that gave least is dropped.
        var peersOfImage = 8
    }

    /// The name of what is beyond the limits.
    static let other = "other"
    private static let minutesKept = 60

    /// What an event belongs to.
    struct Subject: Sendable, Hashable {
        /// The registry; empty for none.
        let registry: String
        /// `registry/repository`; nil if the request names no repository.
        let image: String?
        let tag: String?

        init(registry: String, repository: String?, tag: String?) {
            self.registry = registry
            self.tag = tag
            image = repository.map { registry.isEmpty ? $0 : "\(registry)/\($0)" }
        }
    }

    struct Image: Sendable, Hashable, Codable {
        var lastTag: String?
        var lastUsed: Double
        var traffic = Traffic()
        var takenFrom: [String: Int64] = [:]

        fileprivate mutating func add(_ more: Traffic, tag: String?, now: Double) {
            traffic += more
            lastUsed = now
            if let tag { lastTag = tag }
        }
    }

    struct Peer: Sendable, Hashable, Codable {
        var address: String?
        var takenBytes: Int64 = 0
        var completed = 0
        var failed = 0
        var lastOutcome: String?
        var lastUsed: Double
    }

    /// A peer that asked, by its address.
    struct Taker: Sendable, Hashable, Codable {
        var givenBytes: Int64 = 0
        var lastUsed: Double
    }

    /// The part that is kept over restarts.
    struct Kept: Sendable, Hashable, Codable {
        /// The form of the file; another one is not read.
        var version = Self.currentVersion
        var countedSince: Double
        var total = Traffic()
        var registries: [String: Traffic] = [:]
        var images: [String: Image] = [:]
        var peers: [String: Peer] = [:]
        var takers: [String: Taker] = [:]
        /// The hours of the last day that had any.
        var hours: [TrafficSnapshot.Interval] = []

        static let currentVersion = 1
    }

    private let limits: Limits
    private let startedAt: Double
    private var sinceStart = Traffic()
    private var minutes: [TrafficSnapshot.Interval] = []
    private(set) var kept: Kept

    /// - Parameters:
    ///   - now: the start.
    ///   - kept: what an earlier process counted.
    init(now: Double, kept: Kept? = nil, limits: Limits = Limits()) {
        self.limits = limits
        startedAt = now
        self.kept = kept ?? Kept(countedSince: now)
        trim()
    }

    // MARK: Events

    /// Adds traffic to all accounts of a subject.
    mutating func add(_ traffic: Traffic, to subject: Subject, now: Double) {
        sinceStart += traffic
        kept.total += traffic
        Self.add(traffic, to: &minutes, length: 60, now: now)
        if minutes.count > Self.minutesKept { minutes.removeFirst(minutes.count - Self.minutesKept) }
        dropEarlierDays(now: now)
        Self.add(traffic, to: &kept.hours, length: 3600, now: now)
        addToRegistry(subject.registry, traffic)
        addToImage(subject, traffic, now: now)
    }

    /// Adds bytes that a peer gave.
    mutating func addTaken(_ bytes: Int64, from peer: String, address: String?, subject: Subject, now: Double) {
        var traffic = Traffic()
        traffic.takenBytes = bytes
        add(traffic, to: subject, now: now)
        updatePeer(peer, now: now) {
            $0.takenBytes &+= bytes
            if let address { $0.address = address }
        }
        guard bytes > 0, let image = subject.image, let index = kept.images.index(forKey: image) else { return }
        kept.images.values[index].takenFrom[peer, default: 0] &+= bytes
        guard kept.images.values[index].takenFrom.count > limits.peersOfImage else { return }
        let others = kept.images.values[index].takenFrom.filter { $0.key != peer }
        if let least = others.min(by: { $0.value < $1.value }) {
            kept.images.values[index].takenFrom[least.key] = nil
        }
    }

    /// Records the outcome of an attempt.
    ///
    /// - Parameter failure: a short name of a fixed set; nil when the response was received to its end.
    mutating func recordOutcome(_ failure: String?, of peer: String, now: Double) {
        updatePeer(peer, now: now) {
            $0.lastOutcome = failure ?? "completed"
            if failure == nil { $0.completed += 1 } else { $0.failed += 1 }
        }
    }

    /// Adds bytes that were given to the peer at an address.
    mutating func addGiven(_ bytes: Int64, to address: String, subject: Subject, now: Double) {
        var traffic = Traffic()
        traffic.servedBytes = bytes
        add(traffic, to: subject, now: now)
        if kept.takers[address] == nil, kept.takers.count >= limits.peers { Self.dropOldest(&kept.takers, \.lastUsed) }
        var taker = kept.takers[address] ?? Taker(lastUsed: now)
        taker.givenBytes &+= bytes
        taker.lastUsed = now
        kept.takers[address] = taker
    }

    private static func add(
        _ traffic: Traffic, to intervals: inout [TrafficSnapshot.Interval], length: Double, now: Double
    ) {
        let start = (now / length).rounded(.down) * length
        // A clock that was set back adds to the last interval.
        if let last = intervals.last, last.start >= start {
            intervals[intervals.count - 1].traffic += traffic
        } else {
            intervals.append(TrafficSnapshot.Interval(start: start, traffic: traffic))
        }
    }

    private static func day(_ time: Double) -> Double { (time / 86_400).rounded(.down) }

    private mutating func dropEarlierDays(now: Double) {
        guard let first = kept.hours.first, Self.day(first.start) != Self.day(now) else { return }
        kept.hours.removeAll { Self.day($0.start) != Self.day(now) }
    }

    private mutating func addToRegistry(_ registry: String, _ traffic: Traffic) {
        // In place: this is done for each request.
        if let index = kept.registries.index(forKey: registry) { return kept.registries.values[index] += traffic }
        let isCounted = kept.registries.count < limits.registries
        kept.registries[isCounted ? registry : Self.other, default: Traffic()] += traffic
    }

    private mutating func addToImage(_ subject: Subject, _ traffic: Traffic, now: Double) {
        guard let name = subject.image else { return }
        if let index = kept.images.index(forKey: name) {
            kept.images.values[index].add(traffic, tag: subject.tag, now: now)
        } else {
            // A name that a client invented leads to misses only: it does not push real images out.
            guard traffic.hits > 0 || traffic.servedBytes > 0 || traffic.takenBytes > 0 else {
                return addToOtherImages(traffic, now: now)
            }
            if kept.images.count >= limits.images { moveOldestImageToOther(now: now) }
            kept.images[name] = Image(lastTag: subject.tag, lastUsed: now, traffic: traffic)
        }
    }

    private mutating func moveOldestImageToOther(now: Double) {
        let oldest = kept.images.filter { $0.key != Self.other }.min { $0.value.lastUsed < $1.value.lastUsed }
        guard let oldest else { return }
        kept.images[oldest.key] = nil
        addToOtherImages(oldest.value.traffic, now: oldest.value.lastUsed)
    }

    private mutating func addToOtherImages(_ traffic: Traffic, now: Double) {
        var image = kept.images[Self.other] ?? Image(lastUsed: now)
        image.traffic += traffic
        image.lastUsed = max(image.lastUsed, now)
        kept.images[Self.other] = image
    }

    private mutating func updatePeer(_ id: String, now: Double, _ change: (inout Peer) -> Void) {
        func apply(to peer: inout Peer) {
            peer.lastUsed = now
            change(&peer)
        }
        if let index = kept.peers.index(forKey: id) { return apply(to: &kept.peers.values[index]) }
        if kept.peers.count >= limits.peers { Self.dropOldest(&kept.peers, \.lastUsed) }
        var peer = Peer(lastUsed: now)
        apply(to: &peer)
        kept.peers[id] = peer
    }

    private static func dropOldest<Value>(_ values: inout [String: Value], _ used: (Value) -> Double) {
        if let oldest = values.min(by: { used($0.value) < used($1.value) }) { values[oldest.key] = nil }
    }

    /// Applies the limits to what was read from a file.
    private mutating func trim() {
        kept.version = Kept.currentVersion
        for name in kept.registries.keys.sorted().dropFirst(limits.registries) where name != Self.other {
            if let traffic = kept.registries.removeValue(forKey: name) {
                kept.registries[Self.other, default: Traffic()] += traffic
            }
        }
        while kept.images.count > limits.images + 1 { moveOldestImageToOther(now: startedAt) }
        while kept.peers.count > limits.peers { Self.dropOldest(&kept.peers, \.lastUsed) }
        while kept.takers.count > limits.peers { Self.dropOldest(&kept.takers, \.lastUsed) }
        kept.hours = Array(kept.hours.suffix(24))
    }

    // MARK: Snapshot

    /// Everything but the transfers.
    func snapshot(now: Double) -> TrafficSnapshot {
        var snapshot = TrafficSnapshot()
        snapshot.time = now
        snapshot.startedAt = startedAt
        snapshot.countedSince = kept.countedSince
        snapshot.sinceStart = sinceStart
        snapshot.total = kept.total
        snapshot.minutes = Self.filled(minutes, length: 60, count: Self.minutesKept, now: now)
        let hour = Int((now.truncatingRemainder(dividingBy: 86_400) / 3600).rounded(.down))
        snapshot.hours = Self.filled(kept.hours, length: 3600, count: hour + 1, now: now)
        for interval in snapshot.hours { snapshot.today += interval.traffic }
        snapshot.registries = kept.registries.map { TrafficSnapshot.Registry(name: $0.key, traffic: $0.value) }
            .sorted { ($1.traffic.savedBytes, $0.name) < ($0.traffic.savedBytes, $1.name) }
        snapshot.images = kept.images.map { name, image in
            TrafficSnapshot.Image(
                name: name, lastTag: image.lastTag, lastUsed: image.lastUsed, traffic: image.traffic,
                takenFrom: image.takenFrom)
        }.sorted { ($1.lastUsed, $0.name) < ($0.lastUsed, $1.name) }
        snapshot.peers = peers()
        return snapshot
    }

    private func peers() -> [TrafficSnapshot.Peer] {
        var takers = kept.takers
        var peers = kept.peers.map { id, peer in
            let taker = peer.address.flatMap { kept.takers[$0] }
            if let address = peer.address { takers[address] = nil }
            return TrafficSnapshot.Peer(
                id: id, address: peer.address, givenBytes: taker?.givenBytes ?? 0, takenBytes: peer.takenBytes,
                completed: peer.completed, failed: peer.failed, lastOutcome: peer.lastOutcome,
                lastUsed: max(peer.lastUsed, taker?.lastUsed ?? 0))
        }
        peers += takers.map { address, taker in
            TrafficSnapshot.Peer(
                id: nil, address: address, givenBytes: taker.givenBytes, takenBytes: 0, completed: 0, failed: 0,
                lastOutcome: nil, lastUsed: taker.lastUsed)
        }
        return peers.sorted {
            ($1.lastUsed, $0.id ?? $0.address ?? "") < ($0.lastUsed, $1.id ?? $1.address ?? "")
        }
    }

    /// The intervals up to now without gaps, as many as asked for.
    private static func filled(
        _ intervals: [TrafficSnapshot.Interval], length: Double, count: Int, now: Double
    ) -> [TrafficSnapshot.Interval] {
        let byStart = Dictionary(intervals.map { ($0.start, $0.traffic) }) { first, second in
            var sum = first
            sum += second
            return sum
        }
        let last = (now / length).rounded(.down) * length
        return (0..<max(count, 0)).reversed().map { index in
            let start = last - Double(index) * length
            return TrafficSnapshot.Interval(start: start, traffic: byStart[start] ?? Traffic())
        }
    }
}
