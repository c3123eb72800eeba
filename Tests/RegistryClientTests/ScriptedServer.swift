import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// An HTTP server that answers each request as a script says, also in ways no honest server would.
final class ScriptedServer: Sendable {
    struct Request: Sendable {
        var uri: String
        var headers: HTTPHeaders
        /// How many requests for the same target came before.
        var earlier: Int

        /// The first byte asked for.
        var offset: Int {
            guard let range = headers.first(name: "range"), let dash = range.lastIndex(of: "-") else { return 0 }
            return Int(range.dropFirst("bytes=".count)[..<dash]) ?? 0
        }
    }

    struct Response: Sendable {
        var status: HTTPResponseStatus = .ok
        var headers: HTTPHeaders = [:]
        var body: [UInt8] = []
        /// Announced length, when it is not the body's.
        var length: Int?
        /// Closes the connection after so many bytes of the body.
        var cut: Int?
        /// With a cut: closes the connection only when this is given. What of a response has arrived but was not asked
        /// for yet, a client may drop when the connection ends.
        var closing: Signal?
        /// Sends the body in chunks, without announcing its length; with a cut, the last chunk is missing.
        var isChunked = false
    }

    /// Something that happens once, and that another part of a test waits for.
    final class Signal: Sendable {
        private struct State {
            var isGiven = false
            var action: (@Sendable () -> Void)?
        }

        private let state = Mutex(State())

        /// More than once is harmless.
        func give() {
            let action = state.withLock { state in
                defer { state.action = nil }
                state.isGiven = true
                return state.action
            }
            action?()
        }

        /// Runs an action when the signal is given, now if it was.
        func whenGiven(_ action: @escaping @Sendable () -> Void) {
            let isGiven = state.withLock { state in
                if !state.isGiven { state.action = action }
                return state.isGiven
            }
            if isGiven { action() }
        }
    }

    private let channel: any Channel
    private let log: Log

    private final class Log: Sendable {
        let counts = Mutex<[String: Int]>([:])

        func add(_ uri: String) -> Int {
            counts.withLock { counts in
                defer { counts[uri, default: 0] += 1 }
                return counts[uri, default: 0]
            }
        }
    }

    /// `host:port`.
    let authority: String

    init(_ script: @escaping @Sendable (Request) -> Response) async throws {
        let log = Log()
        self.log = log
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(Handler(script: script, log: log))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        authority = "127.0.0.1:\(channel.localAddress?.port ?? 0)"
    }

    /// How often a target was asked for.
    func count(_ uri: String) -> Int {
        log.counts.withLock { $0[uri] ?? 0 }
    }

    func close() async throws {
        try await channel.close()
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        private let script: @Sendable (Request) -> Response
        private let log: Log

        init(script: @escaping @Sendable (Request) -> Response, log: Log) {
            self.script = script
            self.log = log
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard case .head(let head) = unwrapInboundIn(data) else { return }
            let response = script(Request(uri: head.uri, headers: head.headers, earlier: log.add(head.uri)))
            var headers = response.headers
            if response.isChunked {
                headers.replaceOrAdd(name: "transfer-encoding", value: "chunked")
            } else {
                headers.replaceOrAdd(name: "content-length", value: "\(response.length ?? response.body.count)")
            }
            let answer = HTTPResponseHead(version: .http1_1, status: response.status, headers: headers)
            context.write(wrapOutboundOut(.head(answer)), promise: nil)
            let body = ByteBuffer(bytes: response.body.prefix(response.cut ?? .max))
            if response.cut != nil {
                let channel = context.channel
                let sent = channel.eventLoop.makePromise(of: Void.self)
                // Not before the body has left: what waits to be written is dropped when the connection closes.
                sent.futureResult.whenComplete { _ in
                    guard let closing = response.closing else { return channel.close(promise: nil) }
                    closing.whenGiven { channel.close(promise: nil) }
                }
                context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(body))), promise: sent)
            } else {
                context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil)
                context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            context.close(promise: nil)
        }
    }
}
