/// What a router knows of another node at one moment.
public struct KnownPeer: Hashable, Sendable {
    /// The node.
    public var peer: Peer
    /// Whether a connection to it is open.
    public var isConnected: Bool
    /// Its program and version, as it says itself; nil when it has not said.
    public var agentVersion: String?
    /// How long it takes to answer a request on an open connection, smoothed over the last ones; nil before the first.
    public var roundTripTime: Duration?

    /// Describes a node.
    public init(
        peer: Peer, isConnected: Bool = false, agentVersion: String? = nil, roundTripTime: Duration? = nil
    ) {
        self.peer = peer
        self.isConnected = isConnected
        self.agentVersion = agentVersion
        self.roundTripTime = roundTripTime
    }
}
