import NIOCore

/// Where an HTTP server listens, how it runs, and its limits.
public struct HTTPServerConfiguration: Sendable {
    /// Where to listen; at least one address.
    public var listen: [ListenAddress]
    /// The limits.
    public var limits: HTTPLimits
    /// Event loops to run on. When nil, the server makes its own and ends them with itself.
    public var eventLoopGroup: (any EventLoopGroup)?
    /// How many event loops the server makes when it makes its own: nil for one per core.
    public var eventLoops: Int?
    /// Connections that may wait to be accepted on each socket; the system may allow fewer.
    public var backlog: Int

    /// A configuration.
    public init(
        listen: [ListenAddress], limits: HTTPLimits = HTTPLimits(), eventLoopGroup: (any EventLoopGroup)? = nil,
        eventLoops: Int? = nil, backlog: Int = 4096
    ) {
        self.listen = listen
        self.limits = limits
        self.eventLoopGroup = eventLoopGroup
        self.eventLoops = eventLoops
        self.backlog = backlog
    }
}
