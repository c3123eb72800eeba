import NIOCore
import NIOHTTP1

/// Answers the requests of a server. Called on event loops; must not block.
protocol RequestResponder: Sendable {
    /// Answers one request, now or later, through `exchange`.
    func respond(to exchange: HTTPExchange)
    /// The body of an error that the server itself found.
    func errorBody(_ status: HTTPResponseStatus, message: String) -> (contentType: String, body: ByteBuffer)
}
