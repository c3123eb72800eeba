import Logging
import NIOCore
import NIOPosix

/// The configuration of a ``Host``.
package struct HostConfiguration: Sendable {
    /// The node's key.
    package var identity: NodeIdentity
    /// Where to listen: `/ip4/A/tcp/P` or `/ip6/A/tcp/P`; the unspecified address means every interface of that family,
    /// port 0 any free one.
    package var listenAddresses: [Multiaddr]
    /// Advertised instead of what follows from the listeners' addresses.
    package var announcedAddresses: [Multiaddr]?
    /// Whether loopback addresses are advertised and accepted: for several nodes on one machine, as in tests.
    package var advertiseLoopback = false
    /// Which of the addresses in a peer's identify are accepted; nil for all that can be dialled.
    package var addressPolicy: AddressPolicy?
    /// The agent version in identify: name and version of this program.
    package var agentVersion = "spegel-swift"
    /// All limits.
    package var limits = HostLimits()
    /// The loops connections live on.
    package var eventLoopGroup: any EventLoopGroup
    /// Where to log; what remote peers do is logged at debug level.
    package var logger: Logger

    /// Makes a configuration.
    package init(
        identity: NodeIdentity, listenAddresses: [Multiaddr],
        eventLoopGroup: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
        logger: Logger = Logger(label: "PeerRouting")
    ) {
        self.identity = identity
        self.listenAddresses = listenAddresses
        self.eventLoopGroup = eventLoopGroup
        self.logger = logger
    }
}

/// Every limit of a host, with its reason. The defaults suit a node of a cluster; tests shorten the times.
public struct HostLimits: Sendable {
    // MARK: Connections

    /// Connections in all, both directions. Beyond it the one idle longest without streams is closed, and when all
    /// are busy the new one.
    public var connections = 512
    /// Connections with one source address (for IPv6 one /64), so that a single machine cannot take them all. Beyond it the
    /// one of that source idle longest is closed, members of the routing table excepted. Loopback is exempt, as many nodes
    /// may share it.
    public var connectionsPerSource = 32
    /// Connections accepted but not yet secured, so that slow handshakes cannot fill the node.
    public var unsecuredConnections = 128
    /// Those of one source address, so that one machine's silence does not keep the others out; loopback is exempt.
    public var unsecuredPerSource = 16
    /// Connections to one peer. Two are normal when both dialled at once; beyond this the one idle longest is closed.
    public var connectionsPerPeer = 4
    /// Whether the two limits per source count loopback addresses, each as a machine of its own: for tests.
    package var countsLoopback = false
    /// New connections from one source address that may come at once; loopback is exempt.
    public var acceptBurst = 32
    /// New connections per second from one source address after the burst.
    public var acceptRate = 2.0
    /// Source addresses tracked for the rate at a time.
    public var acceptSources = 4096
    /// From TCP accept or connect to the finished upgrade.
    public var upgradeTimeout: TimeAmount = .seconds(15)
    /// TCP connect.
    public var dialTimeout: TimeAmount = .seconds(5)
    /// Addresses of one peer tried per connect, in turn.
    public var dialAddresses = 8
    /// Dials under way at a time, all peers together; more fail at once.
    public var dials = 256
    /// After the n-th failed dial an address is in back-off for this + n² seconds, at most ``dialBackOffMaximum``.
    public var dialBackOffBase: TimeAmount = .seconds(5)
    /// Longest back-off of an address.
    public var dialBackOffMaximum: TimeAmount = .minutes(5)
    /// Silence after which a keepalive ping is sent.
    public var keepAliveInterval: TimeAmount = .seconds(30)
    /// Without an answer to it for this long the connection ends.
    public var keepAliveTimeout: TimeAmount = .seconds(10)
    /// A connection whose outgoing bytes do not move for this long ends.
    public var writeTimeout: TimeAmount = .seconds(10)
    /// Bytes waiting for the socket at which the connection stops being read: only a peer that makes this host answer
    /// without reading the answers gets there, as stream data is held back long before.
    public var outboundBufferMaximum = 1 << 20

    // MARK: Streams

    /// Streams a peer may have open on one connection.
    public var inboundStreams = 256
    /// Streams a peer may have open whose protocol is not agreed.
    public var negotiatingStreams = 64
    /// Streams of one message protocol a peer may have open on one connection.
    public var messageStreams = 64
    /// Identify and identify-push streams a peer may have open on one connection.
    public var identifyStreams = 4
    /// Ping streams a peer may have open on one connection.
    public var pingStreams = 2
    /// Streams this host has open on one connection; further requests wait, as peers reset what exceeds their own limits.
    public var outboundStreams = 32
    /// Requests that wait so on one connection, each at most ``requestTimeout``; more fail at once.
    public var waitingStreams = 1024
    /// Agreeing on a stream's protocol.
    public var negotiationTimeout: TimeAmount = .seconds(10)
    /// Protocols proposed by one initiator before the negotiation fails.
    public var negotiationProposals = 16
    /// A request until its answer is complete.
    public var requestTimeout: TimeAmount = .seconds(10)
    /// A batch being sent: the time without any progress.
    public var sendTimeout: TimeAmount = .seconds(10)
    /// An inbound message stream without a request is reset after this. Reset instead of FIN, after which the peer would
    /// go on sending records that are not read.
    public var messageStreamIdleTimeout: TimeAmount = .seconds(60)
    /// The identify exchange.
    public var identifyTimeout: TimeAmount = .seconds(5)
    /// A ping's answer, and the silence after which an inbound ping stream ends.
    public var pingTimeout: TimeAmount = .seconds(10)

    // MARK: Memory

    /// Longest request accepted, in bytes.
    public var requestLength = 64 << 10
    /// Longest answer accepted or sent, in bytes.
    public var responseLength = 4 << 20
    /// Longest identify message, in bytes.
    public var identifyMessageLength = 8 << 10
    /// Messages that make up one identify answer.
    public var identifyMessages = 10
    /// Protocols kept of one peer.
    public var identifyProtocols = 1024
    /// Bytes of unfinished messages and unread stream data in the whole node; a stream that would exceed it is reset.
    public var bufferedBytes = 64 << 20

    // MARK: Address book

    /// Addresses kept per peer.
    public var addressesPerPeer = 64
    /// Peers kept that are not connected.
    public var addressBookPeers = 10_000
    /// How long a disconnected peer's addresses stay.
    public var recentAddressLifetime: TimeAmount = .minutes(15)
    /// How often the interfaces are checked for changed addresses.
    public var interfaceCheckInterval: TimeAmount = .seconds(30)

    /// The defaults.
    public init() {}

    /// What limits per source count an address under; nil when it is exempt.
    func source(of address: IPAddress) -> IPAddress? { countsLoopback ? address.source : address.limitedSource }
}
