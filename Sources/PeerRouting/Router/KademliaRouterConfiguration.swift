import ContentClaims
import Logging
import NIOCore
import NIOPosix

/// What a ``KademliaRouter`` needs to know.
public struct KademliaRouterConfiguration: Sendable {
    /// The node's key; kept between starts, the node keeps its place in the network.
    public var identity: NodeIdentity
    /// Where to listen: `/ip4/A/tcp/P` or `/ip6/A/tcp/P`, the unspecified address for all interfaces, port 0 for any.
    public var listenAddresses: [Multiaddr]
    /// Announced instead of what the listeners' addresses imply.
    public var announcedAddresses: [Multiaddr]?
    /// The DHT's protocol on the wire. Nodes with different ones form networks of their own: `/spegel/kad/1.0.0` that of
    /// Spegel's nodes, `/ipfs/kad/1.0.0` that of libp2p's defaults. Begins with `/`; at most 128 bytes.
    public var protocolID = KadMessage.protocolID
    /// Where the first peers come from; nil to wait for others to connect.
    public var bootstrap: (any BootstrapSource)?
    /// The router port of the others, for bootstrap candidates that name none; nil when it is this node's own.
    public var clusterPort: UInt16?
    /// Whether this node is a member. One that is not only asks: it does not offer the DHT's protocol, so nobody takes
    /// it into a table or sends it records, and it announces nothing. It needs no addresses to listen on.
    public var isMember = true
    /// Where to serve this node's record at `/id` for others to bootstrap by: `HOST:PORT`, host may be empty.
    public var identityServerAddress: String?
    /// The certificates for mutual TLS of the identity server.
    public var identityServerCertificateDirectory: String?
    /// How this node is an arbiter of cold starts, and claims content itself; nil to take no part.
    public var claims: ClaimLimits? = ClaimLimits()
    /// Which addresses are believed.
    public var addressPolicy: AddressPolicy
    /// Announce and accept loopback addresses: for tests of several nodes on one machine.
    public var advertiseLoopback = false
    /// Our name and version, told to peers.
    public var agentVersion = "spegel-swift"
    /// The bounds of the connections below.
    public var hostLimits = HostLimits()
    /// The loops the connections live on; one of them runs the routing logic.
    public var eventLoopGroup: any EventLoopGroup
    /// Where to log.
    public var logger: Logger
    /// The constants of Kademlia, shortened by tests.
    var kademlia = KademliaConfiguration()

    /// Makes a configuration.
    public init(
        identity: NodeIdentity, listenAddresses: [Multiaddr], bootstrap: (any BootstrapSource)? = nil,
        addressPolicy: AddressPolicy = AddressPolicy(),
        eventLoopGroup: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
        logger: Logger = Logger(label: "PeerRouting")
    ) {
        self.identity = identity
        self.listenAddresses = listenAddresses
        self.bootstrap = bootstrap
        self.addressPolicy = addressPolicy
        self.eventLoopGroup = eventLoopGroup
        self.logger = logger
    }
}

/// The tree that an arbiter makes of the nodes that want the same content before any has it.
public struct ClaimLimits: Sendable, Hashable {
    /// Nodes that fetch one content from the upstream at a time, 1 to 64. Another one begins only when those make less than a
    /// quarter of what it gets itself.
    public var copies: Int
    /// Nodes that stream from one node, 1 to 64.
    public var fanOut: Int
    /// How long a claim lasts without a report, lengthened by tests.
    var lease = ClaimTable<PeerID>.Limits().lease
    /// How long an arbiter may take to answer, lengthened by tests.
    var timeout = Duration.seconds(1)

    /// Values out of range are replaced by the nearest ones within.
    public init(copies: Int = 1, fanOut: Int = 4) {
        self.copies = min(max(copies, 1), 64)
        self.fanOut = min(max(fanOut, 1), 64)
    }

    var table: ClaimTable<PeerID>.Limits {
        var limits = ClaimTable<PeerID>.Limits()
        limits.leaders = copies
        limits.fanOut = fanOut
        limits.lease = lease
        return limits
    }
}
