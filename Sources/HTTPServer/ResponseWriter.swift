import ContentStore
import NIOCore
import NIOHTTP1

/// Writes the one response to one request.
///
/// Everything but ``eventLoop`` must be used on ``eventLoop``, the one of the client's connection; on any other thread
/// the process traps.
///
/// A response is one ``writeHead(_:)``, body bytes through ``write(_:)`` that add up to the head's content length, and
/// one ``finish()``; or ``send(_:body:range:)`` in place of them; or ``abort(_:)`` at any moment. A writer that is
/// finished, aborted or whose client has disconnected ignores further calls.
///
/// **Back-pressure.** ``write(_:)`` never refuses bytes. A producer stops when ``isWritable`` is false and goes on at
/// ``ResponseWriterDelegate/responseWriterIsWritable(_:)``; then at most the high watermark
/// (``HTTPLimits/writeBufferHighWatermark``) and one write more are held for a client.
///
/// **Completeness.** The client sees a complete response only if exactly `contentLength` bytes were written and ``finish()``
/// was called. To withhold the end of a body until its digest is verified, write the last bytes only then; if the
/// verification fails, ``abort(_:)`` closes the connection before the announced length was reached.
public protocol ResponseWriter: AnyObject, Sendable {
    /// The event loop of the client's connection, on which this object must be used.
    var eventLoop: any EventLoop { get }
    /// Whether the response can still reach the client.
    var isOpen: Bool { get }
    /// Whether ``writeHead(_:)`` was called. From then on the status can no longer be changed.
    var isHeadWritten: Bool { get }
    /// Whether body bytes may be written without buffering more than the high watermark.
    var isWritable: Bool { get }
    /// Receives writability and the end of the client. Held strongly until the response ends.
    var delegate: (any ResponseWriterDelegate)? { get set }

    /// Begins the response. The head leaves with the first body bytes, with ``flush()`` or with ``finish()``.
    func writeHead(_ head: ResponseHead)
    /// Adds bytes to the body; for HEAD requests they are dropped. Bytes beyond the head's content length abort.
    func write(_ bytes: ByteBuffer)
    /// Sends what was written. ``finish()`` does so too.
    func flush()
    /// Ends the response; with bytes missing it aborts.
    func finish()
    /// Ends the connection so that the client cannot take the response for complete.
    ///
    /// - Parameter reason: for the log.
    func abort(_ reason: String)
    /// Sends a whole response whose body is content of a store.
    ///
    /// - Parameter range: the bytes of the content that are the body; `head.contentLength` must be their count.
    func send(_ head: ResponseHead, body: OpenContent.Body, range: Range<Int64>)
    /// A future that succeeds when more may be written and fails when the response cannot go on.
    func whenWritable() -> EventLoopFuture<Void>
    /// Says in a word of a fixed set why the response is what it is, for ``RequestSummary/reason``. By default not kept.
    func note(_ reason: String)
}

extension ResponseWriter {
    /// Does not keep the reason.
    public func note(_ reason: String) {}
}

/// Receives the events of a ``ResponseWriter``, on its event loop.
public protocol ResponseWriterDelegate: AnyObject, Sendable {
    /// After ``ResponseWriter/isWritable`` was false it is true again.
    func responseWriterIsWritable(_ writer: any ResponseWriter)
    /// The client disconnected, or the server aborted the response (deadline, shutdown), before it was finished. Called at
    /// most once, and not after `finish` or `abort`.
    func responseWriterDidClose(_ writer: any ResponseWriter)
}

/// The response cannot be continued: the client disconnected, or a deadline passed.
public struct ResponseClosed: Error, Hashable, CustomStringConvertible {
    /// Creates the error.
    public init() {}
    /// What happened.
    public var description: String { "the connection to the client was closed before the response was complete" }
}

extension ResponseWriter {
    /// Sends a whole response that is in memory.
    public func send(_ head: ResponseHead, body: ByteBuffer) {
        var head = head
        head.contentLength = Int64(body.readableBytes)
        writeHead(head)
        write(body)
        finish()
    }

    /// Writes and sends body bytes from any thread or task, and waits until more may be written.
    ///
    /// - Throws: ``ResponseClosed`` when the response cannot go on.
    public func writeAndWait(_ bytes: ByteBuffer) async throws {
        try await eventLoop.flatSubmit {
            self.write(bytes)
            self.flush()
            return self.whenWritable()
        }.get()
    }
}
