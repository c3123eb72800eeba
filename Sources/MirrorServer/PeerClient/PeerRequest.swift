import NIOCore
import PeerRoutingCore

/// Hears of one request to a peer, on its event loop. After `ended` or `failed`, and after
/// ``PeerExchange/cancel()``, nothing more is told.
protocol PeerExchangeDelegate: AnyObject {
    func exchange(_ exchange: PeerExchange, received head: PeerResponseHead)
    func exchange(_ exchange: PeerExchange, received body: ByteBuffer)
    /// The bytes of one read were delivered; call ``PeerExchange/read()`` for more.
    func exchangeReadCompleted(_ exchange: PeerExchange)
    func exchangeEnded(_ exchange: PeerExchange)
    func exchange(_ exchange: PeerExchange, failed failure: PeerFailure)
}

/// One request to one peer: waits for a connection, sends, watches the deadlines up to the head of the answer.
///
/// Confined to its event loop.
final class PeerExchange: PeerConnectionUser {
    /// What is asked for.
    struct Request {
        /// The target, as ``OCIDistribution/DistributionRequest/uri`` writes it.
        var uri: String
        var isHead: Bool
        /// The value of `Range`; nil for all.
        var range: String?
        /// The value of `Authorization`; nil for none.
        var authorization: String?
    }

    let peer: Peer
    /// When, by the request's clock, the peer was asked, for the time to its first byte; nil while waiting for a
    /// connection.
    private(set) var sentAt: NIODeadline?

    /// `address:port` of the peer, while it is connected to.
    var authority: String? { connection?.authority }

    private let request: Request
    private let pool: PeerPool
    private let configuration: PeerClientConfiguration
    private let isUrgent: Bool
    private let clock: RequestClock
    private weak var delegate: (any PeerExchangeDelegate)?
    private var waiter: PoolWaiter?
    private var connection: PeerConnection?
    private var timer: RequestTimer?
    private var isOver = false
    private var wasRetried = false

    init(
        _ request: Request, to peer: Peer, isUrgent: Bool, pool: PeerPool, configuration: PeerClientConfiguration,
        clock: RequestClock, delegate: any PeerExchangeDelegate
    ) {
        self.request = request
        self.peer = peer
        self.isUrgent = isUrgent
        self.pool = pool
        self.configuration = configuration
        self.clock = clock
        self.delegate = delegate
    }

    /// Begins. The delegate is not called from within this call.
    func start() {
        acquire(fresh: false)
    }

    /// Asks for one more read of the body.
    func read() { connection?.read() }

    /// Ends it; nothing more is told.
    func cancel() {
        guard !isOver else { return }
        isOver = true
        timer?.cancel()
        if let waiter { pool.forget(waiter) }
        waiter = nil
        let connection = connection
        self.connection = nil
        connection?.cancel()
    }

    private func acquire(fresh: Bool) {
        // The dial has a deadline of its own; this one is for those that wait behind others.
        setTimer(configuration.queueTimeout) { $0.fail(.overloaded) }
        let waiter = PoolWaiter(peer: peer, isUrgent: isUrgent, needsFresh: fresh) { [weak self, pool] result in
            if let self {
                acquired(result)
            } else if case .success(let connection) = result {
                // Given up meanwhile: the connection is for somebody else.
                pool.giveBack(connection)
            }
        }
        self.waiter = waiter
        pool.acquire(waiter)
    }

    private func acquired(_ result: Result<PeerConnection, PeerFailure>) {
        waiter = nil
        switch result {
        case .success(let connection):
            if isOver { return pool.giveBack(connection) }
            self.connection = connection
            sentAt = clock.now
            setTimer(configuration.firstByteTimeout) { $0.fail(.firstByteTimeout) }
            connection.send(serialized(for: connection), isHead: request.isHead, for: self)
        case .failure(let failure):
            if !isOver { fail(failure) }
        }
    }

    private func serialized(for connection: PeerConnection) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(minimumWritableBytes: 320)
        buffer.writeStaticString(request.isHead ? "HEAD " : "GET ")
        buffer.writeString(request.uri)
        buffer.writeStaticString(" HTTP/1.1\r\nHost: ")
        buffer.writeString(connection.authority)
        buffer.writeStaticString("\r\nUser-Agent: spegel\r\nX-Spegel-Mirrored: true")
        if let range = request.range {
            buffer.writeStaticString("\r\nRange: ")
            buffer.writeString(range)
        }
        if let authorization = request.authorization {
            buffer.writeStaticString("\r\nAuthorization: ")
            buffer.writeString(authorization)
        }
        buffer.writeStaticString("\r\n\r\n")
        return buffer
    }

    private func setTimer(_ duration: Duration, _ action: @escaping @Sendable (PeerExchange) -> Void) {
        timer?.cancel()
        let bound = NIOLoopBound(self, eventLoop: pool.eventLoop)
        timer = clock.timer(in: TimeAmount(duration), on: pool.eventLoop) { action(bound.value) }
    }

    private func fail(_ failure: PeerFailure) {
        guard !isOver else { return }
        let delegate = delegate
        cancel()
        delegate?.exchange(self, failed: failure)
    }

    // MARK: PeerConnectionUser

    func received(head: PeerResponseHead) {
        guard !isOver else { return }
        timer?.cancel()
        timer = nil
        delegate?.exchange(self, received: head)
    }

    func received(body: ByteBuffer) {
        guard !isOver else { return }
        delegate?.exchange(self, received: body)
    }

    func readCompleted() {
        guard !isOver else { return }
        delegate?.exchangeReadCompleted(self)
    }

    func receivedEnd() {
        guard !isOver else { return }
        isOver = true
        connection = nil
        delegate?.exchangeEnded(self)
    }

    func connectionFailed(_ failure: PeerFailure) {
        guard !isOver else { return }
        let wasUsedBefore = (connection?.answers ?? 0) > 0
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
