import Logging
import NIOCore

/// A whole Kademlia node without its network: routing table, records, searches and announcements in one value.
///
/// Everything that happens is told to it together with the time; everything it wants done collects in ``takeActions()``,
/// and ``nextDeadline`` says when it wants to be woken. It starts no threads, reads no clock, and draws its randomness
/// from a seed, so the same code runs over sockets and in a simulation of thousands of nodes.
///
/// The work is divided over extensions: admission of peers, serving, searching, announcing.
struct KademliaNode: Sendable {
    enum Timer: Sendable {
        case stalls(QueryID)
        case deadline(QueryID)
        case refresh
        case recheck
        case selfLookup
        case provide
        case sweep
        case probe(KadContact)
        case retry(KadContact, attempt: Int)
    }

    enum RequestPurpose: Sendable {
        /// Part of a search.
        case query(QueryID)
        /// The liveness check before admission.
        case check
        /// Whether a peer is still there; the number of earlier attempts to find an evicted peer again.
        case probe(attempt: Int?)
        /// Whether a peer still has our record of the key at this position, after it reconnected.
        case audit(KadKey)
    }

    enum QueryPurpose: Sendable {
        /// For providers of the key at the target, on behalf of the callers in the lookup cache.
        case lookup
        /// For the keepers of one of our keys.
        case provide(ContentKey)
        case selfLookup
        /// To fill a bucket.
        case refresh(bucket: Int)
    }

    struct RunningQuery: Sendable {
        var query: IterativeQuery
        let purpose: QueryPurpose
        /// What is asked: the bytes whose hash is the target.
        let key: [UInt8]
        var isStallScheduled = false
        var hasFoundProvider = false
    }

    struct Connection: Sendable {
        var contact: KadContact
        var speaksKademlia: Bool
        /// Where the connection leads; nil in simulations without addresses.
        var remote: IPAddress?
    }

    /// One of our keys while it is being announced.
    struct Announcement: Sendable {
        var outstanding = 0
        var reached = 0
    }

    /// Announcements on their way to one peer.
    struct Outbox: Sendable {
        var contact: KadContact
        var positions: [KadKey] = []
        /// How many of `positions`, from the start, are in the batch under way.
        var inFlight = 0
        /// Of those from the start, how many are extra: their outcome is not counted for the key.
        var isExtra: [Bool] = []
    }

    /// Counts since the start, for metrics and for the simulator.
    struct Statistics: Sendable {
        var requestsSent: UInt64 = 0
        var requestsFailed: UInt64 = 0
        var recordsSent: UInt64 = 0
        var requestsServed: UInt64 = 0
        var recordsReceived: UInt64 = 0
        var lookupsStarted: UInt64 = 0
        var lookupsShared: UInt64 = 0
        var evictions: UInt64 = 0
        /// Searches that found a provider in the network, by how many answers had to come in one after the other.
        var firstProviderDepths: [UInt64] = []
        /// Searches that found nobody, the same until their end.
        var missDepths: [UInt64] = []

        static func count(_ depth: Int, in counts: inout [UInt64]) {
            let index = min(max(0, depth), 31)
            while counts.count <= index { counts.append(0) }
            counts[index] += 1
        }
    }

    let configuration: KademliaConfiguration
    let local: PeerID
    let key: KadKey
    /// Under which we can be reached, announced with records and in answers about ourselves.
    var addresses: [Multiaddr] = []

    var table: RoutingTable
    var store: ProviderStore
    var schedule: ProvideSchedule
    var lookups: LookupTable
    var health = PeerHealth()
    var connections: [KadKey: Connection] = [:]
    /// Peers that said goodbye, and until when records of them from others are not believed.
    var departed: [KadKey: NIODeadline] = [:]
    var queries: [QueryID: RunningQuery] = [:]
    var lookupQueries: [KadKey: QueryID] = [:]
    var requests: [RequestID: (contact: KadContact, purpose: RequestPurpose)] = [:]
    var checking: Set<KadKey> = []
    var probing: Set<KadKey> = []
    var formerPeers: Set<KadKey> = []
    var probedAt: [KadKey: NIODeadline] = [:]

    var announcements: [KadKey: Announcement] = [:]
    var unassigned: [ContentKey] = []
    var coverages: [NetworkCoverage] = []
    var outboxes: [KadKey: Outbox] = [:]
    var batches: [BatchID: KadKey] = [:]
    var provideQueries: [QueryID: KadKey] = [:]
    var provideTimer: NIODeadline?

    var timers = TimerQueue<Timer>()
    var actions: [KademliaAction] = []
    var random: SplitMix64
    var statistics = Statistics()
    var nextNumber: UInt64 = 0
    var isSelfLookupRunning = false
    var isSelfLookupScheduled = false
    var lastSelfLookup: NIODeadline?
    /// Whether the last search for our own position found fewer than k peers: then the table is the network.
    var networkIsSmall = false
    var bucketRefreshed: [Int: NIODeadline] = [:]
    var isSweeping = false
    var hasLeft = false
    var wasOnline = false
    /// The share of the key space per node, smoothed; nil before the first measurement.
    var nodeSpacing: Double?

    /// Makes a node without peers.
    init(
        local: PeerID, addresses: [Multiaddr] = [], configuration: KademliaConfiguration = KademliaConfiguration(),
        seed: UInt64, now: NIODeadline
    ) {
        self.configuration = configuration
        self.local = local
        self.addresses = addresses
        key = KadKey(hashing: local.bytes)
        table = RoutingTable(own: key, bucketSize: configuration.k)
        store = ProviderStore(own: key, limits: configuration.store, now: now)
        schedule = ProvideSchedule(own: key, timing: configuration.provide, now: now)
        lookups = LookupTable(limits: configuration.lookup)
        random = SplitMix64(seed: seed)
        let first = random.jittered(configuration.refreshInterval.nanoseconds, spread: 0.5)
        timers.schedule(.refresh, at: now + .nanoseconds(first))
        timers.schedule(.recheck, at: now + configuration.recheckInterval)
    }

    /// Whether anybody is there to ask.
    var isOnline: Bool { !table.isEmpty }

    /// Whether the first look around, after joining, has been finished.
    var hasLookedAround: Bool { lastSelfLookup != nil }

    /// This node as others know it.
    var ownContact: KadContact { KadContact(id: local, key: key, addresses: addresses, isConnected: true) }

    /// When ``advance(now:)`` wants to be called.
    var nextDeadline: NIODeadline? { timers.nextDeadline }

    /// The actions wanted since the last call, in order.
    mutating func takeActions() -> [KademliaAction] {
        defer { actions.removeAll(keepingCapacity: false) }
        return actions
    }

    mutating func number() -> UInt64 {
        nextNumber += 1
        return nextNumber
    }

    mutating func log(_ level: Logger.Level, _ message: String, _ metadata: [String: String] = [:]) {
        actions.append(.log(level, message, metadata))
    }

    /// Does what has become due.
    mutating func advance(now: NIODeadline) {
        while let timer = timers.popDue(now: now) {
            switch timer {
            case .stalls(let id):
                guard queries[id] != nil else { break }
                queries[id]?.isStallScheduled = false
                queries[id]?.query.markStalled(now: now)
                pump(id, now: now)
            case .deadline(let id):
                guard queries[id] != nil else { break }
                queries[id]?.query.stop()
                pump(id, now: now)
            case .refresh:
                refresh(now: now)
            case .recheck:
                timers.schedule(.recheck, at: now + configuration.recheckInterval)
                if table.count <= configuration.smallTable { recheckOutsiders(now: now) }
            case .selfLookup:
                isSelfLookupScheduled = false
                startSelfLookup(now: now)
            case .provide:
                // One left over from before an earlier one was wanted must not lead to another, or they pile up.
                guard let due = provideTimer, due <= now else { break }
                provideTimer = nil
                pumpAnnouncements(now: now)
            case .sweep:
                sweep(now: now)
            case .probe(let contact):
                probe(contact, attempt: nil, now: now)
            case .retry(let contact, let attempt):
                retryFormerPeer(contact, attempt: attempt, now: now)
            }
        }
    }

    // MARK: Requests

    mutating func send(_ message: KadMessage, to contact: KadContact, for purpose: RequestPurpose) {
        let id = RequestID(number: number())
        requests[id] = (contact, purpose)
        statistics.requestsSent += 1
        actions.append(.request(id, contact, message))
    }

    /// A request was answered.
    ///
    /// - Parameter remote: The address the answer came from.
    mutating func requestSucceeded(
        _ id: RequestID, _ answer: KadMessage, from remote: IPAddress? = nil, now: NIODeadline
    ) {
        guard let (contact, purpose) = requests.removeValue(forKey: id) else { return }
        health.alive(contact.key)
        switch purpose {
        case .query(let query):
            noteAlive(contact, from: remote, now: now)
            queryAnswered(query, by: contact, from: remote, answer, now: now)
        case .check:
            checking.remove(contact.key)
            noteAlive(contact, from: remote, now: now)
        case .probe:
            probing.remove(contact.key)
            noteAlive(contact, from: remote, now: now)
            // It is there, whether the table has room for it or not.
            formerPeers.remove(contact.key)
        case .audit(let position):
            noteAlive(contact, from: remote, now: now)
            if !answer.providerPeers.contains(where: { $0.key == key }), schedule.contains(position) {
                announceEverything(to: contact, now: now)
            }
        }
    }

    /// A request failed.
    mutating func requestFailed(_ id: RequestID, _ failure: KademliaFailure, now: NIODeadline) {
        guard let (contact, purpose) = requests.removeValue(forKey: id) else { return }
        statistics.requestsFailed += 1
        if failure == .unreachable { peerFailed(contact, now: now) }
        switch purpose {
        case .query(let query):
            queries[query]?.query.failed(contact.key)
            pump(query, now: now)
        case .check:
            checking.remove(contact.key)
        case .probe(let attempt):
            probing.remove(contact.key)
            guard let attempt else { break }
            switch failure {
            case .unreachable, .local: scheduleRetry(contact, attempt: attempt, now: now)
            case .refused: formerPeers.remove(contact.key)
            }
        case .audit:
            break
        }
    }
}
