import NIOCore

/// The addresses, event loops and limits of an HTTP server.
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

/// Every bound of the HTTP server: sizes, counts and waits.
///
/// The defaults let one node hold 10,000 idle keep-alive connections and several hundred slow readers at once, while
/// no single client can make the server hold more than one request head, one buffered response and one open file.
public struct HTTPLimits: Sendable, Hashable {
    /// Longest request line in bytes, without its line ending. Beyond it: `414 URI Too Long`.
    public var requestLineBytes = 8 * 1024
    /// Most bytes of a whole request head (request line and header fields). Beyond it: `431`.
    /// At most 1 MiB is honoured.
    public var headBytes = 32 * 1024
    /// Most header fields in one request. Beyond it: `431 Request Header Fields Too Large`.
    public var headFields = 100
    /// Largest request body in bytes that is read and dropped so that the connection can be kept. No supported
    /// request has a body; after a larger one the connection is closed.
    public var discardedBodyBytes = 64 * 1024

    /// Longest time from the first byte of a request to the end of its head. Beyond it: `408` and close.
    public var headTimeout: Duration = .seconds(10)
    /// How long a connection may stay open without a request.
    public var idleTimeout: Duration = .seconds(120)
    /// Longest time until a response begins, while the store or the miss handler looks the content up. Beyond it:
    /// `504` and close.
    public var responseTimeout: Duration = .seconds(60)
    /// Longest time within a response during which neither the client takes a byte nor one is produced. Beyond it the
    /// connection is reset.
    public var progressTimeout: Duration = .seconds(60)
    /// How long a connection that the server closes waits for the client to close too, so that the last response is
    /// not lost to a reset.
    public var lingerTimeout: Duration = .seconds(2)
    /// Most bytes read and dropped while waiting in that way.
    public var lingerBytes = 256 * 1024
    /// How long running responses may go on after a graceful shutdown began.
    public var shutdownGracePeriod: Duration = .seconds(30)

    /// Most connections that are served. Beyond it a request is answered `503` and the connection closed.
    public var connections = 16_384
    /// Most connections of one source address that are served, so that one client leaves room for others and for health
    /// checks. Beyond it as beyond ``connections``. When others have connections too it is less: each leaves the same part of
    /// what is free, a quarter by default, so that several take all only together and one after the other.
    public var connectionsPerSource = 12_288
    /// Most connections above ``connections`` that are still accepted in order to answer `503`. Beyond it a connection
    /// is closed at once.
    public var refusedConnections = 256

    /// Bytes handed to one `sendfile(2)`. Between two of them the file is checked and progress recorded.
    public var fileRegionBytes = 2 * 1024 * 1024
    /// Files up to this many bytes are read and sent together with the response head in one write.
    public var inlineFileBytes = 32 * 1024
    /// Response bytes buffered for a connection above which a writer has to wait.
    public var writeBufferHighWatermark = 256 * 1024
    /// Response bytes buffered for a connection below which a waiting writer may go on.
    public var writeBufferLowWatermark = 64 * 1024

    /// The default limits.
    public init() {}

    /// The limits with values out of range replaced by the nearest valid ones.
    func clamped() -> HTTPLimits {
        var limits = self
        limits.headBytes = min(max(headBytes, 64), 1024 * 1024)
        limits.requestLineBytes = min(max(requestLineBytes, 16), limits.headBytes)
        limits.headFields = max(headFields, 1)
        limits.discardedBodyBytes = max(discardedBodyBytes, 0)
        limits.lingerBytes = max(lingerBytes, 0)
        limits.connections = max(connections, 1)
        limits.connectionsPerSource = max(connectionsPerSource, 1)
        limits.refusedConnections = max(refusedConnections, 0)
        limits.fileRegionBytes = max(fileRegionBytes, 4096)
        limits.inlineFileBytes = min(max(inlineFileBytes, 0), 1024 * 1024)
        limits.writeBufferLowWatermark = max(writeBufferLowWatermark, 1)
        limits.writeBufferHighWatermark = max(writeBufferHighWatermark, limits.writeBufferLowWatermark)
        return limits
    }

    /// How many connections one source may have.
    ///
    /// - Parameter open: connections of all sources.
    func share(whenOpen open: Int) -> Int {
        guard connectionsPerSource < connections else { return connectionsPerSource }
        let (free, left) = (Double(max(0, connections - open)), Double(connections - connectionsPerSource))
        return min(connectionsPerSource, Int((free * Double(connectionsPerSource) / left).rounded()))
    }

    /// The shortest timeout, from which the interval of the timeout checks is derived.
    var shortestWait: TimeAmount {
        let shortest = [headTimeout, idleTimeout, responseTimeout, progressTimeout, lingerTimeout].min() ?? .seconds(1)
        return TimeAmount(shortest)
    }
}
