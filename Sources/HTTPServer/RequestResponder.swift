import NIOCore
import NIOHTTP1

/// Answers the requests of a server. Called on event loops; must not block.
package protocol RequestResponder: Sendable {
    /// Answers one request, now or later, through `exchange`.
    func respond(to exchange: HTTPExchange)
    /// The body of an error response of the server itself.
    func errorBody(_ status: HTTPResponseStatus, message: String) -> (contentType: String, body: ByteBuffer)
}

/// The outcome of a completed request.
public struct RequestSummary: Sendable {
    /// Which part of the server answered, as the `handler` label of the metrics: `v2`, `manifest`, `blob`, `livez`,
    /// `readyz`, `unauthorized`, `unknown` (no such path or method) or `invalid` (a syntax error). On an
    /// `AdminServer`, the path of the route.
    public var handler: String
    /// The request method.
    public var method: HTTPMethod
    /// The request target; empty for one with a syntax error.
    public var target: String
    /// The status of the response; nil if the connection ended before there was one.
    public var status: HTTPResponseStatus?
    /// Bytes of body given to the client's socket.
    public var bodyBytes: Int64
    /// Time from the end of the request head to the end of the response.
    public var duration: Duration
    /// Whether the response was sent to its end.
    public var isComplete: Bool
    /// The client's address, if it has one.
    public var remoteAddress: SocketAddress?
    /// Why the response is what it is, as ``ResponseWriter/note(_:)`` said; nil if nothing did.
    public var reason: String?

    package init(
        handler: String, method: HTTPMethod, target: String, status: HTTPResponseStatus?, bodyBytes: Int64,
        duration: Duration, isComplete: Bool, remoteAddress: SocketAddress?, reason: String? = nil
    ) {
        self.handler = handler
        self.reason = reason
        self.method = method
        self.target = target
        self.status = status
        self.bodyBytes = bodyBytes
        self.duration = duration
        self.isComplete = isComplete
        self.remoteAddress = remoteAddress
    }
}

/// Receives the beginning and the outcome of every request, on event loops: implementations must not block.
public protocol RequestObserver: Sendable {
    /// A request was routed to `handler`.
    func requestBegan(handler: String)
    /// The response to a request ended. For `handler` `invalid` there was no ``requestBegan(handler:)``.
    func requestEnded(_ summary: RequestSummary)
}
