import NIOCore

/// What a stream does with its bytes. All calls come on the connection's event loop.
protocol StreamHandler: AnyObject {
    /// Bytes kept besides the stream's own buffers.
    var bufferedBytes: Int { get }
    /// The stream is there: the moment to write.
    func opened(_ stream: MuxedStream)
    /// There are new bytes in `stream.inbound`, or the peer's end came. What is taken opens the peer's window.
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
    /// Both sides said all they had to say.
    case finished
    /// The peer reset it, with a code of its own choosing.
    case resetByPeer(UInt32)
    /// We reset it.
    case reset(String)
    /// The connection is gone.
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
    /// True when nothing more will come; `inbound` may still hold the last.
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
    /// Guards against handing over bytes from within a handing over.
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

    /// Ends our direction after what has been written.
    func finish() {
        guard !isClosed, !finishRequested else { return }
        finishRequested = true
        connection.enqueue(self)
    }

    /// Ends both directions at once.
    func reset(_ reason: String) {
        connection.reset(self, reason)
    }

    /// Asks for a ``StreamHandler/expired(_:)`` after a time without another call of this.
    func expire(after time: TimeAmount) {
        deadline = connection.eventLoop.now + time
    }

    /// Hands what has been received to the handler again, after it held back.
    func resume() {
        connection.deliver(self)
    }
}
