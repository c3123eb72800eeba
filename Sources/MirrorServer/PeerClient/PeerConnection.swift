import NIOCore
import PeerRoutingCore

/// Receives the events of a ``PeerConnection`` for the request that uses it.
protocol PeerConnectionUser: AnyObject {
    func received(head: PeerResponseHead)
    func received(body: ByteBuffer)
    /// The bytes of one read were delivered; call ``PeerConnection/read()`` for more.
    func readCompleted()
    /// The response is complete. The connection is no longer the user's.
    func receivedEnd()
    /// The connection is lost, and no longer the user's.
    func connectionFailed(_ failure: PeerFailure)
}

/// One connection to a peer. It carries one request at a time, and reads only on ``read()``.
///
/// Confined to its event loop.
final class PeerConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Most bytes of a cancelled response that are read and dropped in order to keep the connection.
    static let drainLimit: Int64 = 64 * 1024
    /// How long draining may take.
    static let drainTimeout: TimeAmount = .seconds(2)

    private enum Phase {
        case idle
        case head(any PeerConnectionUser)
        case body(any PeerConnectionUser, remaining: Int64)
        /// Reads and drops the rest of a cancelled response; nil while its head has not been received.
        case draining(remaining: Int64?)
        case closed
    }

    let peer: PeerEndpoint
    /// `address:port`, for the `Host` field.
    let authority: String
    /// When the connection became idle.
    private(set) var idleSince: NIODeadline
    /// Responses received in full, drained ones included.
    private(set) var responses = 0

    private var phase = Phase.idle
    private var parser = ResponseHeadParser()
    private var received = ByteBuffer()
    private var isHead = false
    private var keepsConnection = true
    private var isReading = false
    private var context: ChannelHandlerContext?
    private let sizing: ReceiveSizing
    private var drainTimer: Scheduled<Void>?
    /// Notified when the connection is idle or lost.
    weak var pool: PeerPool?

    init(peer: PeerEndpoint, authority: String, sizing: ReceiveSizing) {
        self.peer = peer
        self.authority = authority
        self.sizing = sizing
        idleSince = .now()
    }

    /// Whether it is open without a request.
    var isIdle: Bool {
        if case .idle = phase { return context?.channel.isActive ?? false }
        return false
    }

    /// Sends a request. The response goes to `user`.
    func send(_ request: ByteBuffer, isHead: Bool, for user: any PeerConnectionUser) {
        guard let context, case .idle = phase else {
            user.connectionFailed(.closedBeforeHead)
            return
        }
        self.isHead = isHead
        phase = .head(user)
        context.writeAndFlush(wrapOutboundOut(request), promise: nil)
        read()
    }

    /// Reads once.
    func read() {
        guard !isReading, let context else { return }
        isReading = true
        context.read()
    }

    /// The user wants no more of the response: it is drained, or the connection is closed.
    func cancel() {
        switch phase {
        case .head:
            beginDraining(nil)
        case .body(_, let remaining) where remaining <= Self.drainLimit && keepsConnection:
            beginDraining(remaining)
        case .body:
            close()
        case .idle, .draining, .closed:
            break
        }
    }

    /// Closes the connection without an event for the user.
    func close() {
        guard let context else { return }
        phase = .closed
        context.close(promise: nil)
    }

    private func beginDraining(_ remaining: Int64?) {
        guard let context else { return }
        phase = .draining(remaining: remaining)
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        drainTimer = context.eventLoop.scheduleTask(in: Self.drainTimeout) { bound.value.close() }
        if remaining == 0 { becomeIdle() } else { read() }
    }

    // MARK: Channel

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        isReading = false
        take(unwrapInboundIn(data))
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        switch phase {
        // When idle, too: that the channel need not stop and start reading saves system calls.
        case .head, .draining, .idle: read()
        case .body(let user, _): user.readCompleted()
        case .closed: break
        }
    }

    func channelInactive(context: ChannelHandlerContext) { lost(.closedEarly) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        lost(.closedEarly)
        context.close(promise: nil)
    }

    private func take(_ bytes: ByteBuffer) {
        var bytes = bytes
        while bytes.readableBytes > 0 {
            switch phase {
            case .idle:
                // Bytes without a request: what follows on this connection cannot be told apart from them.
                lost(.protocolError(PeerProtocolError("bytes after the end of the response")))
                context?.close(promise: nil)
                return
            case .closed:
                return
            case .head, .draining(remaining: nil):
                takeHead(&bytes)
            case .body(let user, let remaining):
                guard let part = bytes.readSlice(length: Int(min(Int64(bytes.readableBytes), remaining))) else {
                    return
                }
                let rest = remaining - Int64(part.readableBytes)
                phase = .body(user, remaining: rest)
                user.received(body: part)
                // The user may have cancelled meanwhile.
                if rest == 0, case .body(let user, 0) = phase { end(user) }
            case .draining(let remaining?):
                let count = Int(min(Int64(bytes.readableBytes), remaining))
                bytes.moveReaderIndex(forwardBy: count)
                phase = .draining(remaining: remaining - Int64(count))
                if remaining == Int64(count) { becomeIdle() }
            }
        }
    }

    private func takeHead(_ bytes: inout ByteBuffer) {
        if received.readableBytes == 0 {
            swap(&received, &bytes)
            bytes = ByteBuffer()
        } else {
            received.writeBuffer(&bytes)
        }
        let head: PeerResponseHead
        do throws(PeerProtocolError) {
            guard let next = try parser.next(from: &received) else { return }
            head = next
        } catch {
            lost(.protocolError(error))
            context?.close(promise: nil)
            return
        }
        bytes = received
        received = ByteBuffer()
        // A body of unknown length could only end with the connection; such a response is rejected.
        let length: Int64 =
            isHead || head.status == 204 || head.status == 304 ? 0 : head.contentLength ?? .max
        keepsConnection = head.keepsConnection && length != .max
        switch phase {
        case .head(let user):
            phase = .body(user, remaining: length)
            sizing.beginBody(length)
            user.received(head: head)
            if length == 0, case .body(let user, 0) = phase { end(user) }
        case .draining:
            guard length <= Self.drainLimit, keepsConnection else { return close() }
            phase = .draining(remaining: length)
            if length == 0 { becomeIdle() }
        case .idle, .body, .closed:
            break
        }
    }

    private func end(_ user: any PeerConnectionUser) {
        becomeIdle()
        user.receivedEnd()
    }

    private func becomeIdle() {
        drainTimer?.cancel()
        drainTimer = nil
        responses += 1
        sizing.endBody()
        guard keepsConnection else { return close() }
        phase = .idle
        idleSince = .now()
        pool?.becameIdle(self)
    }

    private func lost(_ failure: PeerFailure) {
        drainTimer?.cancel()
        let last = phase
        phase = .closed
        pool?.closed(self)
        pool = nil
        switch last {
        case .head(let user):
            if case .protocolError = failure {
                user.connectionFailed(failure)
            } else {
                user.connectionFailed(.closedBeforeHead)
            }
        case .body(let user, _):
            user.connectionFailed(failure)
        case .idle, .draining, .closed:
            break
        }
    }
}

/// How large the next read from a peer may be: small for a head, as large as the budget allows for a body.
///
/// Used on the connection's event loop only.
final class ReceiveSizing: @unchecked Sendable {
    // Unchecked: both users, the channel and the connection's handler, live on one event loop.

    /// The size of a read while no body is received, which a small body comes with.
    static let headBytes = 8 * 1024

    private(set) var next = ReceiveSizing.headBytes
    private let memory: TransferMemory
    private var inBody = false

    init(memory: TransferMemory) { self.memory = memory }

    /// A body of this many bytes follows.
    func beginBody(_ bytes: Int64) {
        inBody = true
        next = Int(min(Int64(memory.chunkBytes), max(bytes, Int64(Self.headBytes))))
    }

    func endBody() {
        inBody = false
        next = Self.headBytes
    }

    /// Grows while reads are filled and shrinks while they are less than a quarter full.
    func record(_ count: Int) {
        guard inBody else { return }
        let limit = memory.chunkBytes
        if count >= next {
            next = min(next * 2, limit)
        } else if count < next / 4 {
            next = max(next / 2, 16 * 1024)
        }
        next = min(next, limit)
    }
}

/// Allocates the receive buffers of a channel by a ``ReceiveSizing``. Each read gets a buffer of its own, because it is
/// passed on.
struct RelayReceiveAllocator: RecvByteBufferAllocator {
    let sizing: ReceiveSizing

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer {
        allocator.buffer(capacity: sizing.next)
    }

    /// No hint: with one the channel would keep a large buffer for as long as the connection lives.
    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool {
        sizing.record(actualReadBytes)
        return true
    }
}
