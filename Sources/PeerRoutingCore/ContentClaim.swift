/// A question of a node whose container runtime has begun to fetch content that no node holds yet: who goes to the
/// upstream, and whom do the others follow (cold start).
public struct ContentClaim: Hashable, Sendable {
    /// The digest of the content as text, compared byte for byte.
    public var key: String
    /// Bytes of the content that this node's store already has.
    public var offset: UInt64
    /// The peer that this node followed until now and that failed, when there is one.
    public var failedParent: PeerID?
    /// Bytes per second that this node lately got from the upstream; 0 when it is not known.
    public var upstreamRate: UInt64
    /// What this node does already because of an earlier claim, to be told to another arbiter; nil to ask.
    public var current: Current?

    /// What a claimant does.
    public enum Current: Hashable, Sendable {
        /// It fetches from the upstream.
        case leading
        /// It fetches from that peer.
        case following(PeerID)
    }

    /// Describes a claim.
    public init(
        key: String, offset: UInt64 = 0, failedParent: PeerID? = nil, upstreamRate: UInt64 = 0,
        current: Current? = nil
    ) {
        self.key = key
        self.offset = offset
        self.failedParent = failedParent
        self.upstreamRate = upstreamRate
        self.current = current
    }
}

/// What a claim came to.
public enum ClaimAnswer: Hashable, Sendable {
    /// How long a claim may take when no arbiter answers in its second; else it takes a round trip.
    public static let deadline = Duration.seconds(8)

    /// This node fetches the content from the upstream, for the others too. The lead is a lease: it lapses unless the node
    /// reports that it goes on (``PeerRouter/report(_:of:)``).
    case lead
    /// This node fetches the content from that peer, which is about to have it.
    case follow(Peer)
    /// No peer could say; the node goes on as if it were alone.
    case unknown
}

/// How content that was claimed comes along at this node.
public enum ClaimProgress: Hashable, Sendable {
    /// The store has so many bytes of it. Renews the lease when it is more than at the last report.
    case arriving(bytes: UInt64)
    /// The store holds the whole content.
    case complete
    /// The fetch has ended without the content.
    case failed
}
