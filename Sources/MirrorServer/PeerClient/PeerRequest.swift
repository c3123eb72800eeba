import NIOCore
import PeerRoutingCore

/// Receives the events of a ``PeerRequest``, on its event loop. None follows after completion, failure or
/// ``PeerRequest/cancel()``.
protocol PeerRequestDelegate: AnyObject {
    func request(_ request: PeerRequest, received head: PeerResponseHead)
    func request(_ request: PeerRequest, received body: ByteBuffer)
    /// The bytes of one read were delivered; call ``PeerRequest/read()`` for more.
    func requestReadCompleted(_ request: PeerRequest)
    /// The response is complete.
    func requestCompleted(_ request: PeerRequest)
    func request(_ request: PeerRequest, failed failure: PeerFailure)
}

/// One request to one peer: waits for a connection, sends, and enforces the deadlines up to the head of the response.
///
/// Confined to its event loop.
final class PeerRequest: PeerConnectionUser {
    /// What is sent.
    struct Message {
        /// The target, as ``OCIDistribution/DistributionRequest/uri`` writes it.
        var uri: String
        var isHead: Bool
        /// The value of `Range`; nil for all.
        var range: String?
        /// The value of `Authorization`; nil for none.
        var authorization: String?
    }

    let peer: Peer
    /// When the request was sent, by its clock; nil while it waits for a connection.
    private(set) var sentAt: NIODeadline?

    /// `address:port` of the peer, while connected.
    var authority: String? { connection?.authority }

    private let message: Message
    private let pool: PeerPool
    private let configuration: PeerClientConfiguration
    private let isUrgent: Bool
    private let clock: StallAdjustedClock
    weak var delegate: (any PeerRequestDelegate)?
    private var waiter: PoolWaiter?
    private var connection: PeerConnection?
    private var timer: DeadlineTimer?
    private var isOver = false
    private var wasRetried = false

    /// - Parameter isUrgent: whether there is no other peer to ask.
    init(
        _ message: Message, to peer: Peer, isUrgent: Bool, pool: PeerPool, configuration: PeerClientConfiguration,
        clock: StallAdjustedClock, delegate: any PeerRequestDelegate
    ) {
        self.message = message
        self.peer = peer
        self.isUrgent = isUrgent
        self.pool = pool
        self.configuration = configuration
        self.clock = clock
        self.delegate = delegate
    }

    /// Starts. The delegate is not called from within this call.
    func start() {
        acquire(fresh: false)
    }

    /// Reads once more from the connection.
    func read() { connection?.read() }

    /// Cancels the request; no event follows.
    func cancel() {
        guard !isOver else { return }
        isOver = true
        timer?.cancel()
        if let waiter { pool.cancel(waiter) }
        waiter = nil
        let connection = connection
        self.connection = nil
        connection?.cancel()
    }

    private func acquire(fresh: Bool) {
        // The dial has a deadline of its own; this one is for requests that wait behind others.
        setTimer(configuration.queueTimeout) { $0.fail(.overloaded) }
        let waiter = PoolWaiter(peer: peer, isUrgent: isUrgent, needsFresh: fresh) { [weak self, pool] result in
            if let self {
                acquired(result)
            } else if case .success(let connection) = result {
                // Cancelled meanwhile.
                pool.release(connection)
            }
        }
        self.waiter = waiter
        pool.acquire(waiter)
    }

    private func acquired(_ result: Result<PeerConnection, PeerFailure>) {
        waiter = nil
        switch result {
        case .success(let connection):
            if isOver { return pool.release(connection) }
            self.connection = connection
            sentAt = clock.now
            setTimer(configuration.firstByteTimeout) { $0.fail(.firstByteTimeout) }
            connection.send(serialized(for: connection), isHead: message.isHead, for: self)
        case .failure(let failure):
            if !isOver { fail(failure) }
        }
    }

    private func serialized(for connection: PeerConnection) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(minimumWritableBytes: 320)
        buffer.writeStaticString(message.isHead ? "HEAD " : "GET ")
        buffer.writeString(message.uri)
        buffer.writeStaticString(" HTTP/1.1\r\nHost: ")
        buffer.writeString(connection.authority)
        buffer.writeStaticString("\r\nUser-Agent: spegel\r\nX-Spegel-Mirrored: true")
        if let range = message.range {
            buffer.writeStaticString("\r\nRange: ")
            buffer.writeString(range)
        }
        if let authorization = message.authorization {
            buffer.writeStaticString("\r\nAuthorization: ")
            buffer.writeString(authorization)
        }
        buffer.writeStaticString("\r\n\r\n")
        return buffer
    }

    private func setTimer(_ duration: Duration, _ action: @escaping (PeerRequest) -> Void) {
        timer?.cancel()
        timer = clock.timer(in: duration) { [weak self] in
            if let self { action(self) }
        }
    }

    private func fail(_ failure: PeerFailure) {
        guard !isOver else { return }
        let delegate = delegate
        cancel()
        delegate?.request(self, failed: failure)
    }

    // MARK: PeerConnectionUser

    func received(head: PeerResponseHead) {
        guard !isOver else { return }
        timer?.cancel()
        timer = nil
        delegate?.request(self, received: head)
    }

    func received(body: ByteBuffer) {
        guard !isOver else { return }
        delegate?.request(self, received: body)
    }

    func readCompleted() {
        guard !isOver else { return }
        delegate?.requestReadCompleted(self)
    }

    func receivedEnd() {
        guard !isOver else { return }
        isOver = true
        connection = nil
        delegate?.requestCompleted(self)
    }

    func connectionFailed(_ failure: PeerFailure) {
        guard !isOver else { return }
        let wasUsedBefore = (connection?.responses ?? 0) > 0
        connection = nil
        // A kept connection that the peer closes as it is used again says nothing about the peer (RFC 9112 §9.3.1).
        if failure == .closedBeforeHead, wasUsedBefore, !wasRetried {
            wasRetried = true
            sentAt = nil
            acquire(fresh: true)
            return
        }
        fail(failure)
    }
}

/// Why a request to a peer failed.
enum PeerFailure: Error, Sendable, Hashable, CustomStringConvertible {
    /// No connection could be established, or a dial failed a moment ago.
    case unreachable
    /// Too many requests wait for a connection, or this one waited too long.
    case overloaded
    /// The peer closed the connection without a response.
    case closedBeforeHead
    /// The peer closed the connection before the end of the body.
    case closedEarly
    /// No response came in time.
    case firstByteTimeout
    /// The peer sent no bytes of the body, or too few.
    case stalled
    /// The peer violated HTTP.
    case protocolError(PeerProtocolError)

    /// A short name with few values, for metrics.
    var label: String {
        switch self {
        case .unreachable: "unreachable"
        case .overloaded: "overloaded"
        case .closedBeforeHead, .closedEarly: "closed"
        case .firstByteTimeout: "timeout"
        case .stalled: "stalled"
        case .protocolError: "protocol"
        }
    }

    var description: String {
        switch self {
        case .unreachable: "the peer is unreachable"
        case .overloaded: "too many requests wait for a connection to the peer"
        case .closedBeforeHead: "the peer closed the connection without a response"
        case .closedEarly: "the peer closed the connection before the end of the body"
        case .firstByteTimeout: "the peer did not respond in time"
        case .stalled: "the peer stopped sending"
        case .protocolError(let error): error.description
        }
    }
}
