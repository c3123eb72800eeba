import Foundation
import HTTPTestKit
import NIOCore
import NIOEmbedded
import NIOHTTP1
import Synchronization

@testable import HTTPServer

/// Answers with a closure of the test, by default at once with the target as body.
final class ScriptedResponder: RequestResponder, @unchecked Sendable {
    var onRequest: (HTTPExchange) -> Void = { exchange in
        exchange.send(ResponseHead(.ok, contentLength: 0), body: ByteBuffer(string: exchange.request.target))
    }
    private(set) var exchanges: [HTTPExchange] = []

    func respond(to exchange: HTTPExchange) {
        exchange.begin(handler: "test")
        exchanges.append(exchange)
        onRequest(exchange)
    }

    func errorBody(_ status: HTTPResponseStatus, message: String) -> (contentType: String, body: ByteBuffer) {
        ("text/plain", ByteBuffer(string: message))
    }
}

/// One connection on a channel without a socket and with a clock the test moves.
final class EmbeddedConnection {
    let channel = EmbeddedChannel()
    let responder: any RequestResponder
    let context: ServerContext
    let table: ConnectionTable

    init(
        responder: any RequestResponder, limits: HTTPLimits = HTTPLimits(), observer: (any RequestObserver)? = nil,
        isRefused: Bool = false
    ) throws {
        self.responder = responder
        context = ServerContext(limits: limits, responder: responder, observer: observer, logger: quiet)
        _ = context.admit()
        table = ConnectionTable(eventLoop: channel.eventLoop, limits: context.limits)
        let handler = ConnectionHandler(server: context, table: table, isRefused: isRefused)
        try channel.pipeline.syncOperations.addHandler(handler)
        channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1), promise: nil)
    }

    func receive(_ text: String) throws { try receive(Array(text.utf8)) }

    func receive(_ bytes: [UInt8]) throws { try channel.writeInbound(ByteBuffer(bytes: bytes)) }

    /// All that was sent since the last call.
    func sent() throws -> String {
        var text = ""
        while let data = try channel.readOutbound(as: IOData.self) {
            if case .byteBuffer(let bytes) = data { text += String(buffer: bytes) }
        }
        return text
    }

    func advance(_ duration: Duration) { channel.embeddedEventLoop.advanceTime(by: TimeAmount(duration)) }

    var isOpen: Bool { channel.isActive }

    /// Ends the channel whatever state it is in.
    func finish() { _ = try? channel.finish(acceptAlreadyClosed: true) }
}

/// The status codes of the responses in `text`, which must be whole ones.
func statuses(_ text: String) -> [Int] {
    text.components(separatedBy: "HTTP/1.1 ").dropFirst().compactMap { Int($0.prefix(3)) }
}
