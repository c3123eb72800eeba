import NIOCore

/// The protocol side of a stream. All calls come on the connection's event loop.
protocol StreamHandler: AnyObject {
    /// Bytes kept besides the stream's own buffers.
    var bufferedBytes: Int { get }
    /// The stream is there: the moment to write.
    func opened(_ stream: MuxedStream)
    /// There are new bytes in `stream.inbound`, or the peer has sent FIN. What is taken opens the peer's window.
    func received(_ stream: MuxedStream)
    /// All that was written has been passed to the connection.
    func drained(_ stream: MuxedStream)
    /// `stream.deadline` has passed; it is no longer set.
    func expired(_ stream: MuxedStream)
    /// The last call.
    func closed(_ stream: MuxedStream, _ end: StreamEnd)
}

extension StreamHandler {
    var bufferedBytes: Int { 0 }
    func opened(_ stream: MuxedStream) {}
    func drained(_ stream: MuxedStream) {}
    func expired(_ stream: MuxedStream) { stream.reset("no progress in time") }
}

/// How a stream ended.
enum StreamEnd: Sendable, CustomStringConvertible {
    /// Both sides sent FIN.
    case finished
    /// The peer reset it, with a code.
    case resetByPeer(UInt32)
    /// This side reset it.
    case reset(String)
    /// The connection has been closed.
    case connectionClosed(String)

    var description: String {
        switch self {
        case .finished: "finished"
        case .resetByPeer(let code): code == 0 ? "reset by the peer" : "reset by the peer with code \(code)"
        case .reset(let reason): reason
        case .connectionClosed(let reason): "connection closed: \(reason)"
        }
    }
}

/// One stream of a connection. Belongs to the connection's event loop.
final class MuxedStream {
    let id: UInt32
    let connection: Connection
    var handler: any StreamHandler

    /// Bytes received and not taken yet.
    var inbound = ByteBuffer()
    /// True when the peer has sent FIN; `inbound` may still hold the last bytes.
    var isRemoteFinished = false
    /// When ``StreamHandler/expired(_:)`` is called.
    var deadline: NIODeadline? {
        didSet { if let deadline { connection.wake(by: deadline) } }
    }

    /// Which of the peer's stream counts this one is in.
    var category = Connection.StreamCategory.negotiating
    /// Written and not yet passed to the connection.
    var outbound = ByteBuffer()
    var finishRequested = false
    var isLocalFinished = false
    /// Guards against delivery from within a delivery.
    var isDelivering = false
    var deliversAgain = false
    /// In the connection's queue of streams with something to send.
    var isQueued = false
    var isClosed = false
    /// What the memory budget has been charged for this stream.
    var chargedBytes = 0

    init(id: UInt32, connection: Connection, handler: any StreamHandler) {
        self.id = id
        self.connection = connection
        self.handler = handler
    }

    /// Sends bytes, in order, as the peer's window allows.
    func write(_ bytes: ByteBuffer) {
        guard !isClosed, !finishRequested else { return }
        outbound.writeImmutableBuffer(bytes)
        connection.enqueue(self)
    }

    /// Sends FIN after what has been written.
    func finish() {
        guard !isClosed, !finishRequested else { return }
        finishRequested = true
        connection.enqueue(self)
    }

    /// Resets the stream.
    func reset(_ reason: String) {
        connection.reset(self, reason)
    }

    /// Sets the deadline to `time` from now.
    func expire(after time: TimeAmount) {
        deadline = connection.eventLoop.now + time
    }

    /// Hands what has been received to the handler again, after it held back.
    func resume() {
        connection.deliver(self)
        // What was taken may have opened the peer's window, and nothing else may send that for seconds.
        connection.flush()
    }
}
