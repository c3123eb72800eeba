import NIOCore
import PeerRoutingCore

/// What a ``PeerConnection`` tells the request that uses it.
protocol PeerConnectionUser: AnyObject {
    func received(head: PeerResponseHead)
    func received(body: ByteBuffer)
    /// The bytes of one read were delivered; call ``PeerConnection/read()`` for more.
    func readCompleted()
    /// The answer is complete. The connection is no longer the user's.
    func receivedEnd()
    /// The connection is lost, and no longer the user's.
    func connectionFailed(_ failure: PeerFailure)
}

/// One connection to a peer, which carries one request at a time. Reads happen only when asked for.
///
/// Confined to its event loop.
final class PeerConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Bytes of an answer nobody wants any more that are read in order to keep the connection.
    static let drainLimit: Int64 = 64 * 1024
    /// How long that may take.
    static let drainTimeout: TimeAmount = .seconds(2)

    private enum Phase {
        case idle
        case head(any PeerConnectionUser)
        case body(any PeerConnectionUser, remaining: Int64)
        /// Waiting for the rest of an answer nobody wants; nil while its head has not come.
        case draining(remaining: Int64?)
        case closed
    }

    let peer: PeerID
    /// `address:port`, for the `Host` field.
    let authority: String
    /// When the connection became idle.
    private(set) var idleSince: NIODeadline
    /// Answers received in full, wanted or not.
    private(set) var answers = 0

    private var phase = Phase.idle
    private var parser = ResponseHeadParser()
    private var received = ByteBuffer()
    private var isHead = false
    private var keepsConnection = true
    private var isReading = false
    private var context: ChannelHandlerContext?
    private let sizing: ReceiveSizing
    private var drainTimer: Scheduled<Void>?
    /// Told when the connection can take another request, or is lost.
    weak var pool: PeerPool?

    init(peer: PeerID, authority: String, sizing: ReceiveSizing) {
        self.peer = peer
        self.authority = authority
        self.sizing = sizing
        idleSince = .now()
    }

    /// Whether it can take a request.
    var isIdle: Bool {
        if case .idle = phase { return context?.channel.isActive ?? false }
        return false
    }

    /// Sends a request. The answer goes to `user`.
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

    /// Asks for one more read.
    func read() {
        guard !isReading, let context else { return }
        isReading = true
        context.read()
    }

    /// The user wants no more of the answer.
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

    /// Closes the connection without telling the user.
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
        case .head, .draining: read()
        case .body(let user, _): user.readCompleted()
        case .idle, .closed: break
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
                // Bytes nobody asked for: what follows on this connection cannot be told apart from them.
                lost(.broken(PeerProtocolError("bytes after the end of the answer")))
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
            lost(.broken(error))
            context?.close(promise: nil)
            return
        }
        bytes = received
        received = ByteBuffer()
        // A body of unknown length could only end with the connection; nobody reads such a one.
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
        answers += 1
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
            if case .broken = failure {
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
