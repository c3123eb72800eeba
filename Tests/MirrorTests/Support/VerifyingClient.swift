import NIOCore
import NIOPosix
import OCIDistribution

@testable import MirrorServer

/// The outcome of one request of a client.
enum Outcome: Sendable, Hashable, CustomStringConvertible {
    /// A complete response with the expected body.
    case right(status: Int)
    /// A complete response with another body: never acceptable.
    case wrong(status: Int, bytes: Int)
    /// A response without content.
    case refused(status: Int)
    /// The connection closed before the end of the response, after this many expected bytes of the body.
    case broken(after: Int)
    /// As ``broken(after:)``, but with a wrong byte among those received.
    case brokenWrong(after: Int)

    var description: String {
        switch self {
        case .right: "right"
        case .wrong(let status, _): "WRONG(\(status))"
        case .refused(let status): "\(status)"
        case .broken: "broken"
        case .brokenWrong: "broken*"
        }
    }
}

/// A client that compares a body with the expected one while it receives it, so that any size can be verified. It keeps
/// its connection for one request after the other.
final class VerifyingClient: Sendable {
    private let channel: any Channel
    private let handler: NIOLoopBound<VerifyingHandler>

    private init(_ channel: any Channel, _ handler: NIOLoopBound<VerifyingHandler>) {
        self.channel = channel
        self.handler = handler
    }

    /// - Parameter isReading: whether it reads before ``startReading()``.
    static func connect(
        port: Int, receiveBuffer: Int? = nil, isReading: Bool = true
    ) async throws -> VerifyingClient {
        var bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(.minutes(5))
            .channelOption(.autoRead, value: isReading)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 128 * 1024))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(VerifyingHandler())
                }
            }
        if let receiveBuffer {
            bootstrap = bootstrap.channelOption(.socketOption(.so_rcvbuf), value: .init(receiveBuffer))
        }
        let channel = try await bootstrap.connect(host: "127.0.0.1", port: port).get()
        let handler = try await channel.eventLoop.submit {
            NIOLoopBound(
                try channel.pipeline.syncOperations.handler(type: VerifyingHandler.self), eventLoop: channel.eventLoop)
        }.get()
        return VerifyingClient(channel, handler)
    }

    /// Sends a request and compares the body with `expected`.
    func get(_ path: String, fields: String = "", expected: ByteBuffer, method: String = "GET") async throws -> Outcome
    {
        let (channel, handler) = (self.channel, self.handler)
        return try await channel.eventLoop.flatSubmit {
            let promise = channel.eventLoop.makePromise(of: Outcome.self)
            handler.value.expect(expected, isHead: method == "HEAD", promise)
            let request = "\(method) \(path) HTTP/1.1\r\nHost: test\r\n\(fields)\r\n"
            channel.writeAndFlush(ByteBuffer(string: request), promise: nil)
            return promise.futureResult
        }.get()
    }

    var head: PeerResponseHead? {
        get async throws {
            let handler = handler
            return try await channel.eventLoop.submit { handler.value.head }.get()
        }
    }

    /// The body of the last error response.
    var refusal: String {
        get async throws {
            let handler = handler
            return try await channel.eventLoop.submit { String(buffer: handler.value.refusal) }.get()
        }
    }

    /// The body of a small text response.
    static func text(port: Int, _ path: String) async throws -> String {
        let client = try await connect(port: port)
        _ = try await client.get(path, expected: ByteBuffer())
        let handler = client.handler
        let text = try await client.channel.eventLoop.submit { String(buffer: handler.value.beginning) }.get()
        await client.close()
        return text
    }

    /// Reads from now on.
    func startReading() async {
        try? await channel.setOption(.autoRead, value: true).get()
        channel.read()
    }

    func close() async { try? await channel.close() }

    /// Closes as a killed client does.
    func reset() async { await FaultyPeer.reset(channel) }

    /// One request on a connection of its own.
    static func get(
        port: Int, _ path: String, fields: String = "", expected: ByteBuffer, method: String = "GET"
    ) async throws -> Outcome {
        let client = try await connect(port: port)
        let outcome = try await client.get(path, fields: fields, expected: expected, method: method)
        await client.close()
        return outcome
    }
}

private final class VerifyingHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private(set) var head: PeerResponseHead?
    /// The first MiB of the body, when none is expected.
    private(set) var beginning = ByteBuffer()
    /// The body of an error response.
    private(set) var refusal = ByteBuffer()
    private var expected = ByteBuffer()
    private var isHead = false
    private var promise: EventLoopPromise<Outcome>?
    private var parser = ResponseHeadParser()
    private var pending = ByteBuffer()
    private var remaining = 0
    private var got = 0
    private var isRight = true
    private var isClosed = false

    func expect(_ bytes: ByteBuffer, isHead: Bool, _ promise: EventLoopPromise<Outcome>) {
        guard !isClosed else { return promise.succeed(.broken(after: 0)) }
        expected = bytes
        self.isHead = isHead
        self.promise = promise
        head = nil
        refusal = ByteBuffer()
        got = 0
        isRight = true
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        if head == nil {
            pending.writeBuffer(&bytes)
            do {
                guard let next = try parser.next(from: &pending) else { return }
                head = next
                remaining = isHead ? 0 : Int(next.contentLength ?? 0)
            } catch {
                finish(.wrong(status: 0, bytes: 0))
                return
            }
            bytes = pending
            pending = ByteBuffer()
        }
        let count = min(bytes.readableBytes, remaining)
        if let status = head?.status, status < 300, count > 0 {
            let part = bytes.getSlice(at: bytes.readerIndex, length: count)
            if expected.readableBytes == 0, var part, beginning.readableBytes < 1 << 20 { beginning.writeBuffer(&part) }
            if expected.getSlice(at: expected.readerIndex + got, length: count) != part { isRight = false }
        }
        if let status = head?.status, status >= 300, refusal.readableBytes < 4096,
            var part = bytes.getSlice(at: bytes.readerIndex, length: count)
        {
            refusal.writeBuffer(&part)
        }
        got += count
        remaining -= count
        guard remaining == 0, let status = head?.status else { return }
        guard status < 300 else { return finish(.refused(status: status)) }
        let isComplete = isHead ? true : got == expected.readableBytes
        finish(isRight && isComplete ? .right(status: status) : .wrong(status: status, bytes: got))
    }

    func channelInactive(context: ChannelHandlerContext) {
        isClosed = true
        finish(isRight ? .broken(after: got) : .brokenWrong(after: got))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func finish(_ outcome: Outcome) {
        let promise = promise
        self.promise = nil
        promise?.succeed(outcome)
    }
}
