import Logging
import NIOCore
import NIOHTTP1

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// One client connection: reads requests one after the other, passes each to the responder and waits for its response
/// to end before it parses the next, so that responses keep their order and a client that pipelines requests
/// without reading responses is not read from.
///
/// The connection's only handler. Idle state is kept small: there may be 10,000 of these.
final class ConnectionHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = Never
    typealias OutboundIn = Never
    typealias OutboundOut = IOData

    private enum Phase {
        /// Between requests; nothing of the next one has arrived, or the client does not read the responses.
        case idle
        /// A part of a request head has arrived.
        case head
        case responding(HTTPExchange)
        /// The rest of a request's body is read and dropped.
        case discardingBody(remaining: Int64)
        /// The last response is being written; the connection ends after it.
        case closing
        /// Nothing more is sent; waits for the client to close so that the last response is not lost to a reset.
        case lingering(discarded: Int)
        case closed
    }

    let server: ServerContext
    private let table: ConnectionTable
    private let source: String?
    private let isRefused: Bool
    /// Position in ``table``.
    var tableIndex = -1
    /// Whether no further request is taken after the current response.
    var closesAfterResponse = false

    private var context: ChannelHandlerContext?
    /// Kept, because asking the socket is a system call.
    private lazy var remoteAddress = context?.channel.remoteAddress
    private var parser: RequestParser
    private var phase = Phase.idle
    /// Received bytes that are not parsed yet; nil while there are none.
    private var input: ByteBuffer?
    private var deadline = NIODeadline.distantFuture
    private var inputClosed = false
    private var isProcessing = false
    private var isInRead = false
    private var needsFlush = false
    private var readIsWanted = false
    /// Bytes written to the channel, and how many of them were unsent when progress was last seen.
    private var bytesQueued: UInt64 = 0
    private var progressMark: (queued: UInt64, waiting: Int) = (0, 0)

    /// - Parameters:
    ///   - source: the IP address under which the connection was counted in.
    ///   - isRefused: answer the first request `503` because there are too many connections.
    init(server: ServerContext, table: ConnectionTable, source: String? = nil, isRefused: Bool = false) {
        self.source = source
        self.server = server
        self.table = table
        self.isRefused = isRefused
        parser = RequestParser(limits: server.limits)
    }

    // MARK: Channel events

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        deadline = after(server.limits.idleTimeout)
        table.add(self)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        ended()
    }

    func channelInactive(context: ChannelHandlerContext) {
        ended()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // After a client's reset or a failed system call nothing can be sent.
        context.close(promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        isInRead = true
        switch phase {
        case .lingering(let discarded):
            let total = discarded + bytes.readableBytes
            phase = .lingering(discarded: total)
            if total > server.limits.lingerBytes { context.close(promise: nil) }
        case .closing, .closed:
            break
        case .idle, .head, .discardingBody, .responding:
            if var held = input, held.readableBytes > 0 {
                input = nil
                held.writeBuffer(&bytes)
                input = held
            } else {
                input = bytes
            }
            process()
            // The channel goes on reading once the client has closed its side, so unparsed bytes are bounded here.
            if let held = input, held.readableBytes > server.limits.headBytes + Self.readBytes {
                input = nil
                closesAfterResponse = true
                if case .idle = phase { closeAfterFlush() }
            }
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isInRead = false
        flushIfNeeded()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        guard context.channel.isWritable else { return }
        if case .responding(let exchange) = phase { exchange.channelBecameWritable() }
        process()
        flushIfNeeded()
        resumeReading()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .some(.inputClosed) = event as? ChannelEvent else { return }
        inputClosed = true
        switch phase {
        case .idle, .discardingBody:
            process()
            flushIfNeeded()
        case .head, .lingering:
            context.close(promise: nil)
        case .responding(let exchange):
            // A client with a further request is alive and has closed its side only.
            if !hasInput { exchange.clientEndedInput() }
        case .closing, .closed:
            break
        }
    }

    func read(context: ChannelHandlerContext) {
        if wantsInput { context.read() } else { readIsWanted = true }
    }

    // MARK: For the exchange

    /// Bytes of one read from the socket.
    static let readBytes = 8 * 1024

    var isWritable: Bool { context?.channel.isWritable ?? false }

    func allocate(_ capacity: Int) -> ByteBuffer {
        context?.channel.allocator.buffer(capacity: capacity) ?? ByteBuffer()
    }

    func dateText() -> String { table.dateText(now: table.eventLoop.now) }

    /// Whether the connection can be used for another request after the response to `request`.
    func keepsConnection(after request: RequestHead) -> Bool {
        guard request.keepAlive, !closesAfterResponse, !table.isDraining else { return false }
        switch request.body {
        case .none: return true
        // A client that expects 100 may or may not send its body after another response.
        case .length(let length):
            return length <= Int64(server.limits.discardedBodyBytes) && !request.expectsContinue
        case .chunked: return false
        }
    }

    func write(_ bytes: ByteBuffer) {
        bytesQueued &+= UInt64(bytes.readableBytes)
        needsFlush = true
        context?.write(wrapOutboundOut(.byteBuffer(bytes)), promise: nil)
    }

    func write(_ region: FileRegion, promise: EventLoopPromise<Void>) {
        guard let context else { return promise.fail(ChannelError.ioOnClosedChannel) }
        bytesQueued &+= UInt64(region.readableBytes)
        needsFlush = true
        context.write(wrapOutboundOut(.fileRegion(region)), promise: promise)
    }

    /// Flushes at the end of the read the connection is in, else now.
    func flushSoon() {
        needsFlush = true
        if !isInRead { flushIfNeeded() }
    }

    /// The response ended; its bytes are written but maybe not flushed.
    func responseEnded(keepsConnection: Bool) {
        guard case .responding(let exchange) = phase else { return }
        guard keepsConnection, !closesAfterResponse else { return closeAfterFlush() }
        if case .length(let length) = exchange.request.body, length > 0 {
            phase = .discardingBody(remaining: length)
            deadline = after(server.limits.headTimeout)
        } else {
            becomeIdle()
        }
        guard !isProcessing else { return }
        process()
        if !isInRead { flushIfNeeded() }
        resumeReading()
    }

    // MARK: For the table

    /// A graceful shutdown began.
    func drain() {
        closesAfterResponse = true
        switch phase {
        case .idle: closeIdle()
        case .discardingBody: closeAfterFlush()
        case .head, .responding, .closing, .lingering, .closed: break
        }
    }

    /// Resets the connection, in the middle of a response if need be.
    func reset() {
        guard let context else { return }
        // With a linger time of zero the kernel discards unsent bytes.
        _ = (context.channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
        context.close(promise: nil)
    }

    /// Enforces the deadline of the current phase.
    func tick(now: NIODeadline) {
        switch phase {
        case .idle:
            if hasInput, !isWritable { checkProgress(now) } else if now >= deadline { closeIdle() }
        case .head:
            if now >= deadline { reject(RequestRejection(.requestTimeout, "the request head did not arrive in time")) }
        case .discardingBody, .lingering:
            if now >= deadline { context?.close(promise: nil) }
        case .responding(let exchange):
            if exchange.isHeadWritten {
                checkProgress(now)
                // The region that is being written cannot be completed any more, so it must not be waited for.
                if case .responding = phase, !exchange.transferIsIntact { reset() }
            } else if now >= deadline {
                exchange.responseTimedOut()
                // The progress timeout of the response begins here.
                deadline = after(server.limits.progressTimeout)
            }
        case .closing:
            checkProgress(now)
        case .closed:
            break
        }
    }

    // MARK: Requests

    private var hasInput: Bool { (input?.readableBytes ?? 0) > 0 }

    private var wantsInput: Bool {
        switch phase {
        case .idle: !hasInput || isWritable
        case .head, .discardingBody, .lingering: true
        // One read ahead: that the channel need not stop and start reading for each response saves system calls.
        case .responding: !hasInput
        case .closing, .closed: false
        }
    }

    /// Parses received bytes until none are left or a response has to be awaited.
    private func process() {
        guard !isProcessing else { return }
        isProcessing = true
        defer { isProcessing = false }
        while let context, context.channel.isActive {
            switch phase {
            case .idle, .head:
                guard isWritable else { return }
                guard hasInput else {
                    if inputClosed { closeAfterFlush() }
                    return
                }
                guard let request = nextRequest() else {
                    if inputClosed, case .head = phase { context.close(promise: nil) }
                    if case .head = phase { return }
                    continue
                }
                respond(to: request, context: context)
            case .discardingBody(let remaining):
                let available = min(remaining, Int64(input?.readableBytes ?? 0))
                input?.moveReaderIndex(forwardBy: Int(available))
                guard available < remaining else {
                    becomeIdle()
                    continue
                }
                phase = .discardingBody(remaining: remaining - available)
                input = nil
                if inputClosed { context.close(promise: nil) }
                return
            case .responding, .closing, .lingering, .closed:
                return
            }
        }
    }

    /// The next request if it has arrived as a whole. Sets the phase when there is none.
    private func nextRequest() -> RequestHead? {
        guard var bytes = input else { return nil }
        // Moved out, so that reading does not trigger a copy.
        input = nil
        do {
            let request = try parser.next(from: &bytes)
            if bytes.readableBytes > 0 { input = bytes }
            if request == nil {
                if !hasInput {
                    // Only empty lines.
                    return nil
                }
                if case .idle = phase {
                    phase = .head
                    deadline = after(server.limits.headTimeout)
                }
            }
            return request
        } catch {
            reject(error)
            return nil
        }
    }

    private func respond(to request: RequestHead, context: ChannelHandlerContext) {
        let exchange = HTTPExchange(
            request: request, connection: self, eventLoop: context.eventLoop, remoteAddress: remoteAddress)
        phase = .responding(exchange)
        deadline = exchange.startedAt + TimeAmount(server.limits.responseTimeout)
        progressMark = (bytesQueued, -1)
        if isRefused {
            closesAfterResponse = true
            exchange.fail(.serviceUnavailable, "too many connections", retryAfterSeconds: 1)
        } else {
            server.responder.respond(to: exchange)
        }
    }

    /// Answers an invalid request and closes the connection.
    private func reject(_ rejection: RequestRejection) {
        let (contentType, body) = server.responder.errorBody(rejection.status, message: rejection.reason)
        let head = ResponseHead(rejection.status, contentLength: Int64(body.readableBytes), contentType: contentType)
        var bytes = allocate(512 + body.readableBytes)
        head.serialize(into: &bytes, connection: .close, date: dateText())
        bytes.writeImmutableBuffer(body)
        write(bytes)
        let address = remoteAddress
        server.logger.debug(
            "request refused", metadata: ["reason": "\(rejection)", "ip": "\(address.ipText)"])
        server.observer?.requestEnded(
            RequestSummary(
                handler: "invalid", method: .RAW(value: ""), target: "", status: rejection.status,
                bodyBytes: Int64(body.readableBytes), duration: .zero, isComplete: true, remoteAddress: address))
        closeAfterFlush()
    }

    private func becomeIdle() {
        phase = .idle
        deadline = after(server.limits.idleTimeout)
    }

    private func resumeReading() {
        guard readIsWanted, wantsInput, let context else { return }
        readIsWanted = false
        context.read()
    }

    private func flushIfNeeded() {
        guard needsFlush else { return }
        needsFlush = false
        context?.flush()
    }

    // MARK: Ending

    /// Closes an idle connection, at once if all responses were sent.
    private func closeIdle() {
        guard let context else { return }
        if waitingBytes(context) == 0, !hasInput { context.close(promise: nil) } else { closeAfterFlush() }
    }

    /// Bytes that were written to the channel and not yet to the socket.
    private func waitingBytes(_ context: ChannelHandlerContext) -> Int {
        (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }

    /// Closes after everything was written to the socket: first our side only, so that bytes of the client in flight do
    /// not reset the connection before it has read the response.
    private func closeAfterFlush() {
        guard let context else { return }
        switch phase {
        case .closing, .lingering, .closed: return
        default: break
        }
        phase = .closing
        input = nil
        progressMark = (bytesQueued, -1)
        deadline = after(server.limits.progressTimeout)
        needsFlush = false
        let flushed = context.eventLoop.makePromise(of: Void.self)
        flushed.futureResult.assumeIsolated().whenComplete { result in
            guard let context = self.context, case .closing = self.phase else { return }
            guard case .success = result, !self.inputClosed else { return context.close(promise: nil) }
            self.phase = .lingering(discarded: 0)
            self.deadline = self.after(self.server.limits.lingerTimeout)
            context.close(mode: .output, promise: nil)
            self.resumeReading()
        }
        context.writeAndFlush(wrapOutboundOut(.byteBuffer(ByteBuffer())), promise: flushed)
    }

    /// Resets the connection if for ``HTTPLimits/progressTimeout`` neither a byte was written nor one taken.
    private func checkProgress(_ now: NIODeadline) {
        guard let context else { return }
        let waiting = waitingBytes(context)
        if progressMark != (bytesQueued, waiting) {
            progressMark = (bytesQueued, waiting)
            deadline = now + TimeAmount(server.limits.progressTimeout)
        } else if now >= deadline {
            server.logger.debug(
                "connection reset: no progress", metadata: ["ip": "\(remoteAddress.ipText)"])
            reset()
        }
    }

    private func ended() {
        guard context != nil else { return }
        context = nil
        input = nil
        let last = phase
        phase = .closed
        if case .responding(let exchange) = last { exchange.connectionClosed() }
        server.release(source)
        // Last, so that an empty table means that everything is reported and counted.
        table.remove(self)
    }

    private func after(_ duration: Duration) -> NIODeadline {
        table.eventLoop.now + TimeAmount(duration)
    }
}
