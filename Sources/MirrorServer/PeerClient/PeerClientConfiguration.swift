import NIOCore

/// The bounds of the client that asks peers for content.
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

    /// How long connecting may take, all addresses of a peer together: long enough for one lost SYN, which the system
    /// sends again after a second.
    public var dialTimeout: Duration = .milliseconds(1500)
    /// How long a request may wait for a connection.
    public var queueTimeout: Duration = .seconds(10)
    /// How long a peer may take from the request to the head of its answer.
    public var firstByteTimeout: Duration = .seconds(5)
    /// A body that brings fewer than ``progressBytes`` within this time, while bytes are wanted, has stalled.
    public var progressTimeout: Duration = .seconds(5)
    /// See ``progressTimeout``.
    public var progressBytes = 16 * 1024

    /// The bounds in bytes of one read of a body: it is large while there are few transfers, and shrinks as they become
    /// more.
    public var receiveBytes: ClosedRange<Int> = (32 * 1024)...(512 * 1024)

    /// The default bounds.
    package init(port: Int) { self.port = port }
}
