import HTTPServer
import NIOCore
import NIOHTTP1
import OCIDistribution

/// Answers requests for content that is not in the local store.
public protocol MissHandler: Sendable {
    /// Answers a request.
    ///
    /// Called on the event loop of the client's connection, one call a request, and never for a request that carries
    /// `X-Spegel-Mirrored: true` or that a filter forbids. It must not block. It must lead to exactly one response,
    /// now or later, through `response`; `HTTPLimits.responseTimeout` bounds the time until the response's head.
    func handleMiss(_ request: MissRequest, response: any ResponseWriter)
}

/// A valid request for content that is not in the local store.
public struct MissRequest: Sendable {
    /// What is asked for: a manifest or a blob, never the base path.
    public var distribution: DistributionRequest
    /// Whether only the head of the response is wanted.
    public var isHead: Bool
    /// The byte range of a blob that is asked for; nil for a manifest, a HEAD request and a request for all.
    public var range: ByteRange?
    /// The request's head.
    public var head: RequestHead
    /// The client's address, if it has one.
    public var remoteAddress: SocketAddress?

    package init(
        distribution: DistributionRequest, isHead: Bool, range: ByteRange?, head: RequestHead,
        remoteAddress: SocketAddress?
    ) {
        self.distribution = distribution
        self.isHead = isHead
        self.range = range
        self.head = head
        self.remoteAddress = remoteAddress
    }
}
