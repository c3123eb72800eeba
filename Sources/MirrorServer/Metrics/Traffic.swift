/// Why a request for content that is not in the local store was not answered with the content of a peer.
public enum MissReason: String, Sendable, Hashable, Codable, CaseIterable {
    /// No peer provides the content: the lookup ended without one, or all peers found answered `404`.
    case absent
    /// Providers were found, and none of them could be connected to.
    case unreachable
    /// The lookup found no peer in time, or no peer delivered the content in time.
    case timeout
    /// Providers were reached, and none gave an acceptable response.
    case refused
    /// A filter forbids the reference, so that no peer was asked.
    case filtered
    /// The bytes of the peers did not match the digest.
    case mismatch
    /// The body was interrupted, and no peer continued it: the client may have received a part.
    case interrupted
}

/// What was exchanged with peers within some time.
public struct Traffic: Sendable, Hashable, Codable {
    /// Bytes of local content given to peers.
    public var servedBytes: Int64 = 0
    /// Bytes of bodies received from peers, with those of attempts that failed.
    public var takenBytes: Int64 = 0
    /// Bytes of content that clients received from peers, verified and to the end: what was saved from the upstream. A
    /// response that ends early counts nothing, so that the retry that completes it counts once.
    public var savedBytes: Int64 = 0
    /// Bytes as ``savedBytes``, but not verified: of ranges, or because verification is off.
    public var unverifiedBytes: Int64 = 0
    /// Requests of clients answered with the content of a peer.
    public var hits = 0
    /// Requests of clients not answered with the content of a peer, by ``MissReason``.
    public var misses: [String: Int] = [:]

    /// Nothing.
    public init() {}

    /// Requests not answered with the content of a peer, for whatever reason.
    public var missCount: Int { misses.values.reduce(0, +) }

    /// Adds the traffic of another time or object.
    public static func += (sum: inout Traffic, other: Traffic) {
        sum.servedBytes &+= other.servedBytes
        sum.takenBytes &+= other.takenBytes
        sum.savedBytes &+= other.savedBytes
        sum.unverifiedBytes &+= other.unverifiedBytes
        sum.hits &+= other.hits
        if other.misses.isEmpty { return }
        for (reason, count) in other.misses { sum.misses[reason, default: 0] &+= count }
    }
}

/// The traffic of a node, as status pages show it. Names and meanings stay; new ones may come.
///
/// Times are seconds since 1970; byte counts are of bodies.
public struct TrafficSnapshot: Sendable, Hashable, Codable {
    /// The traffic of one minute or hour.
    public struct Interval: Sendable, Hashable, Codable {
        /// When it begins.
        public var start: Double
        /// What was exchanged in it.
        public var traffic: Traffic
    }

    /// The traffic of one registry.
    public struct Registry: Sendable, Hashable, Codable {
        /// Its name; empty for requests without one, `other` for those beyond the limit.
        public var name: String
        /// Since ``TrafficSnapshot/countedSince``.
        public var traffic: Traffic
    }

    /// The traffic of one image.
    public struct Image: Sendable, Hashable, Codable {
        /// `registry/repository`; `other` for those beyond the limit.
        public var name: String
        /// The last tag that was asked for; nil if none was.
        public var lastTag: String?
        /// When bytes of it were last exchanged.
        public var lastUsed: Double
        /// Since ``TrafficSnapshot/countedSince``.
        public var traffic: Traffic
        /// Bytes taken, by peer ID, of the peers that gave most.
        public var takenFrom: [String: Int64]
    }

    /// The traffic with one peer.
    public struct Peer: Sendable, Hashable, Codable {
        /// Its ID; nil for a peer that only asked, of which the address is known.
        public var id: String?
        /// Its IP address; nil while there was no connection.
        public var address: String?
        /// Bytes of local content given to it. Peers that share an address share this number.
        public var givenBytes: Int64
        /// Bytes of bodies received from it.
        public var takenBytes: Int64
        /// Responses of it that were received to their end.
        public var completed: Int
        /// Attempts that failed.
        public var failed: Int
        /// The last outcome: `completed`, or a short name of the failure (`absent`, `unreachable`, `timeout`, …); nil if
        /// it was never asked.
        public var lastOutcome: String?
        /// When it was last asked or asked itself.
        public var lastUsed: Double
    }

    /// A body that is being relayed.
    public struct Transfer: Sendable, Hashable, Codable {
        /// Identifies it, since the start.
        public var number: UInt64
        /// `registry/repository`.
        public var image: String
        /// The digest or tag.
        public var reference: String
        /// When the request arrived.
        public var start: Double
        /// Bytes of the body received so far.
        public var bytes: Int64
        /// Bytes of the whole body; nil before a peer has answered.
        public var totalBytes: Int64?
        /// The peers that gave them, the current one last.
        public var peers: [String]
        /// Clients that wait for it.
        public var clients: Int
        /// Who gave which bytes, the current one last, at most 16.
        public var sources: [Source]
        /// When it ended, in whatever way; nil while it is under way.
        public var end: Double?
    }

    /// A peer that gives, or gave, bytes of a body.
    public struct Source: Sendable, Hashable, Codable {
        /// Its ID.
        public var peer: String
        /// Its IP address.
        public var address: String
        /// The offset in the body of the first byte that it gave.
        public var offset: Int64
    }

    /// When the snapshot was taken.
    public var time: Double = 0
    /// When the process started to count.
    public var startedAt: Double = 0
    /// When the counts of ``total``, ``registries``, ``images`` and ``peers`` began: earlier than ``startedAt`` if they are kept
    /// over restarts.
    public var countedSince: Double = 0
    /// The traffic since the start of the process.
    public var sinceStart = Traffic()
    /// The traffic since ``countedSince``.
    public var total = Traffic()
    /// The traffic since midnight UTC.
    public var today = Traffic()
    /// The last 60 minutes, oldest first; the last one is the current minute.
    public var minutes: [Interval] = []
    /// The hours since midnight UTC, oldest first; the last one is the current hour.
    public var hours: [Interval] = []
    /// By registry, most bytes saved first.
    public var registries: [Registry] = []
    /// By image, last used first.
    public var images: [Image] = []
    /// By peer, last used first.
    public var peers: [Peer] = []
    /// Bodies that are being relayed, oldest first, at most ``TrafficLedger/listedTransfers``.
    public var transfers: [Transfer] = []
    /// How many there are.
    public var transferCount = 0
    /// Bodies whose relaying has ended, in whatever way, oldest first, at most ``TrafficLedger/keptTransfers``.
    public var recentTransfers: [Transfer] = []
}
