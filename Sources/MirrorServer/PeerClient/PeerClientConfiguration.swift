import NIOCore

/// The limits of the client that sends requests to peers.
public struct PeerClientConfiguration: Sendable {
    /// The port of the peers' registries. Every node of a cluster serves on the same one.
    package var port: Int
    /// The user name and password sent to peers (RFC 7617), if they ask for them.
    package var credentials: BasicCredentials?

    /// Most open connections to one peer. Divided among the event loops, at least 8 for each.
    public var connectionsPerPeer = 256
    /// Most open connections to all peers together. Divided among the event loops, at least 32 for each.
    public var connections = 1024
    /// Most requests of one event loop that wait for a connection.
    public var waitingRequests = 8192
    /// Most idle connections kept for a peer and event loop.
    public var idleConnectionsPerPeer = 64
    /// How long an idle connection is kept.
    public var idleTimeout: Duration = .seconds(60)

    /// How long a dial may take, all addresses of a peer together: long enough for one lost SYN, which the system
    /// retransmits after a second.
    public var dialTimeout: Duration = .milliseconds(1500)
    /// How long a request may wait for a connection.
    public var queueTimeout: Duration = .seconds(10)
    /// How long a peer may take from the request to the head of its response.
    public var firstByteTimeout: Duration = .seconds(5)
    /// A peer that sends fewer than ``progressBytes`` of a body within this time, while bytes are expected, has stalled.
    public var progressTimeout: Duration = .seconds(5)
    /// See ``progressTimeout``.
    public var progressBytes = 16 * 1024

    /// The limits in bytes of one read of a body: large while there are few transfers, smaller as they become more.
    public var receiveBytes: ClosedRange<Int> = (32 * 1024)...(512 * 1024)

    /// The default limits.
    package init(port: Int) { self.port = port }
}
