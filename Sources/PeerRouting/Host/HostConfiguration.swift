import Logging
import NIOCore
import NIOPosix

/// What a ``Host`` needs to know.
public struct HostConfiguration: Sendable {
    /// The node's key.
    public var identity: NodeIdentity
    /// Where to listen: `/ip4/A/tcp/P` or `/ip6/A/tcp/P`; the unspecified address means every interface of that family,
    /// port 0 any free one.
    public var listenAddresses: [Multiaddr]
    /// Told to peers instead of what the listeners' addresses imply.
    public var announcedAddresses: [Multiaddr]?
    /// Whether loopback addresses are told to and taken from peers: for several nodes on one machine, as in tests.
    public var advertiseLoopback = false
    /// Which of the addresses a peer gives itself are remembered, dialled and told; nil for all that can be dialled.
    public var addressPolicy: AddressPolicy?
    /// Our name and version in identify.
    public var agentVersion = "spegel-swift"
    /// All bounds.
    public var limits = HostLimits()
    /// The loops connections live on.
    public var eventLoopGroup: any EventLoopGroup
    /// Where to log; what strangers do is logged at debug level.
    public var logger: Logger

    /// Makes a configuration.
    public init(
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
