/// Finds the nodes that provide a key, and advertises the keys that this node provides.
///
/// A key is an opaque string, compared byte for byte: by convention a digest (`sha256:…`) or a tag reference
/// (`registry/repository:tag`). Knowledge is eventually consistent: a key advertised here is seen elsewhere once the
/// announcement has arrived, and a provider that has left may be found until its record has expired, so callers must
/// handle peers that no longer have, or never had, the content.
public protocol PeerRouter: Sendable {
    /// Announces that this node holds the content of `keys`, now and again for as long as they are not withdrawn.
    ///
    /// Returns once the keys are in the set that is kept announced; the announcement itself goes on in the background,
    /// also across times without connectivity. Keys already in the set cost nothing.
    ///
    /// - Throws: ``PeerRouterError/tooManyKeys(limit:)`` when the set would pass its limit (no key of the call is
    ///   added), ``PeerRouterError/stopped`` after the router has stopped.
    func advertise(_ keys: [String]) async throws

    /// Stops announcing `keys`. Peers forget them when the records they hold expire (within 19 minutes).
    func withdraw(_ keys: [String]) async

    /// The nodes that hold the content of `key`, as they are found; never this node itself.
    ///
    /// Each peer is yielded once, those known to have failed lately last. The stream ends when `limit` peers were
    /// yielded or the search is exhausted. Dropping the stream gives up waiting; the caller sets its own deadline.
    ///
    /// - Parameters:
    ///   - key: What to look for.
    ///   - limit: The most peers; 0 or less for all that can be found.
    func providers(for key: String, limit: Int) -> AsyncStream<Peer>

    /// Reports that a provider could not be reached, so that it is not yielded first again.
    ///
    /// The peer is demoted at once, and left out altogether when the router cannot reach it either, until it
    /// answers again.
    func reportUnreachable(_ peer: PeerID)

    /// Asks who fetches content that no node holds yet; by default nobody can say.
    ///
    /// Only a node whose store has begun to receive the content may claim it. Returns within ``ClaimAnswer/deadline``.
    func claim(_ claim: ContentClaim) async -> ClaimAnswer

    /// Tells how content that this node has claimed comes along, so that its lease is renewed and others hear of the end.
    /// Content that was not claimed is ignored; by default everything is.
    ///
    /// - Returns: whether this node still counts as a claimant. If not, it may claim again.
    func report(_ progress: ClaimProgress, of key: String) async -> Bool

    /// Whether a claim can be answered: another node that knows the protocol is connected. By default it cannot.
    var canClaim: Bool { get }

    /// Whether lookups can be expected to find what the cluster holds.
    var isReady: Bool { get }

    /// This node, with the addresses under which it announces itself.
    var localPeer: Peer { get }

    /// The nodes that were found alive, nearest in the key space first.
    func knownPeers() async -> [Peer]

    /// The nodes of ``knownPeers()`` with what is known of each. By default only who they are.
    func knownPeerDetails() async -> [KnownPeer]

    /// Numbers for operators. By default only the known peers are counted.
    func statistics() async -> RouterStatistics

    /// Begins to listen and to join the other nodes; returns once it listens. By default there is nothing to start.
    func start() async throws

    /// Leaves the other nodes, ends searches and closes everything. By default there is nothing to shut down.
    func shutdown() async
}

extension PeerRouter {
    /// Answers that no peer could say.
    public func claim(_ claim: ContentClaim) async -> ClaimAnswer { .unknown }

    /// Ignores the report: a router of this kind keeps no claims.
    public func report(_ progress: ClaimProgress, of key: String) async -> Bool { false }

    /// Says that it cannot.
    public var canClaim: Bool { false }

    /// Says who the known peers are.
    public func knownPeerDetails() async -> [KnownPeer] { await knownPeers().map { KnownPeer(peer: $0) } }

    /// Counts the known peers.
    public func statistics() async -> RouterStatistics {
        var statistics = RouterStatistics()
        statistics.knownPeers = await knownPeers().count
        return statistics
    }

    /// Does nothing: a router of this kind needs no start.
    public func start() async throws {}

    /// Does nothing: a router of this kind needs no shutdown.
    public func shutdown() async {}
}

/// Numbers of a router at one moment.
public struct RouterStatistics: Sendable, Hashable {
    /// Nodes that were found alive.
    public var knownPeers = 0
    /// Those of them that a connection is open to.
    public var connectedPeers = 0
    /// Keys that this node announces.
    public var ownRecords = 0
    /// Records of other nodes that this node keeps.
    public var keptRecords = 0

    /// Nothing.
    public init() {}
}

/// Why a router did not do what it was asked.
public enum PeerRouterError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The set of advertised keys would have grown over `limit`.
    case tooManyKeys(limit: Int)
    /// The router has been stopped.
    case stopped
    /// A protocol ID that does not begin with `/`, has a line break, or is longer than 128 bytes.
    case unusableProtocolID(String)

    /// The reason in words.
    public var description: String {
        switch self {
        case .tooManyKeys(let limit): "more than \(limit) keys would be advertised by this node"
        case .stopped: "the peer router has stopped"
        case .unusableProtocolID(let name):
            "the protocol ID '\(name)' is not '/' and up to 127 more bytes without line breaks"
        }
    }
}

/// A node of the cluster: its ID and its IP addresses.
///
/// Addresses carry no port: every node of a cluster serves its registry on the same port, so an address is combined
/// with this node's own registry port.
public struct Peer: Hashable, Sendable {
    /// The node's libp2p identity.
    public var id: PeerID
    /// The node's IP addresses without duplicates, best first. May be empty when only the identity is known.
    public var addresses: [IPAddress]
    /// Those of ``addresses`` at which the router itself has met this identity: of a connection that is or was open, whose
    /// key the node has proved. The others are what some node has claimed. Empty when none is known first-hand.
    public var observedAddresses: [IPAddress]

    /// Describes a node.
    public init(id: PeerID, addresses: [IPAddress], observedAddresses: [IPAddress] = []) {
        self.id = id
        self.addresses = addresses
        self.observedAddresses = observedAddresses
    }
}

extension Peer: CustomStringConvertible {
    /// The identity and the addresses, for logs.
    public var description: String {
        "\(id) [\(addresses.map { "\($0)" }.joined(separator: ", "))]"
    }
}
