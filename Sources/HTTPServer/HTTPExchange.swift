import ContentStore
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

/// One request and its response on a connection; implements ``ResponseWriter``.
///
/// Confined to the connection's event loop; `Sendable` only so that it can be carried back there.
package final class HTTPExchange: ResponseWriter, @unchecked Sendable {
    private enum State {
        case awaitingHead
        /// Body bytes that are still to be written.
        case body(remaining: Int64)
        case done
    }

    /// Bodies up to this many bytes are copied behind their head, so that both leave in one write.
    private static let coalescedBytes = 16 * 1024

    package let eventLoop: any EventLoop
    package let request: RequestHead
    package let remoteAddress: SocketAddress?
    let startedAt: NIODeadline
    package private(set) var handler = "unknown"
    package private(set) var status: HTTPResponseStatus?
    package private(set) var bodyBytes: Int64 = 0
    private(set) var keepsConnection = false
    package var delegate: (any ResponseWriterDelegate)?

    /// Nil once the response has ended.
    private var connection: ConnectionHandler?
    private var state = State.awaitingHead
    private var sendsBody = true
    /// The head until it leaves together with the first bytes of the body.
    private var unsentHead: ByteBuffer?
    private var transfer: FileTransfer?
    private var waiters: [EventLoopPromise<Void>] = []
    private var endActions: [@Sendable () -> Void] = []
    private var observed = false
    private var reason: String?

    init(request: RequestHead, connection: ConnectionHandler, eventLoop: any EventLoop, remoteAddress: SocketAddress?) {
        self.request = request
        self.connection = connection
        self.eventLoop = eventLoop
        self.remoteAddress = remoteAddress
        startedAt = eventLoop.now
    }

    // MARK: For responders

    package func note(_ reason: String) { self.reason = reason }

    /// Sets the handler's name for metrics and log.
    package func begin(handler: String) {
        self.handler = handler
        guard let observer = connection?.server.observer, !observed else { return }
        observed = true
        observer.requestBegan(handler: handler)
    }

    /// Runs `action` on the event loop when the response ends, completely or not.
    package func onEnd(_ action: @escaping @Sendable () -> Void) {
        eventLoop.preconditionInEventLoop()
        if isOpen { endActions.append(action) } else { action() }
    }

    /// Sends a whole error response in the server's own format.
    package func fail(_ status: HTTPResponseStatus, _ message: String, retryAfterSeconds: Int? = nil) {
        guard let connection else { return }
        let (contentType, body) = connection.server.responder.errorBody(status, message: message)
        var head = ResponseHead(status, contentLength: 0, contentType: contentType)
        if let retryAfterSeconds { head.fields.append(("Retry-After", "\(retryAfterSeconds)")) }
        send(head, body: body)
    }

    // MARK: ResponseWriter

    package var isOpen: Bool { connection != nil }

    package var isHeadWritten: Bool {
        if case .awaitingHead = state { false } else { true }
    }

    package var isWritable: Bool { connection?.isWritable ?? false }

    package func writeHead(_ head: ResponseHead) {
        eventLoop.preconditionInEventLoop()
        guard let connection else { return }
        guard case .awaitingHead = state else { return abort("a second response head was written") }
        guard head.contentLength >= 0 else { return abort("a response head announced \(head.contentLength) bytes") }
        sendsBody = request.method != .HEAD && head.status.mayHaveBody
        keepsConnection = connection.keepsConnection(after: request)
        status = head.status
        let field: ResponseHead.ConnectionField =
            if !keepsConnection { .close } else if request.version.minor == 0 { .keepAlive } else { .implied }
        var buffer = connection.allocate(
            512 + (sendsBody ? min(Int(clamping: head.contentLength), Self.coalescedBytes) : 0))
        head.serialize(into: &buffer, connection: field, date: connection.dateText())
        unsentHead = buffer
        state = .body(remaining: sendsBody ? head.contentLength : 0)
    }

    package func write(_ bytes: ByteBuffer) {
        eventLoop.preconditionInEventLoop()
        guard let connection, sendsBody else { return }
        guard case .body(let remaining) = state else { return abort("body bytes were written before the head") }
        let count = Int64(bytes.readableBytes)
        guard count <= remaining else { return abort("\(count - remaining) body bytes more than announced") }
        guard count > 0 else { return }
        state = .body(remaining: remaining - count)
        bodyBytes += count
        guard var head = unsentHead else { return connection.write(bytes) }
        unsentHead = nil
        if head.readableBytes + bytes.readableBytes <= Self.coalescedBytes + 1024 {
            head.writeImmutableBuffer(bytes)
            connection.write(head)
        } else {
            connection.write(head)
            connection.write(bytes)
        }
    }

    package func flush() {
        eventLoop.preconditionInEventLoop()
        sendHead()
        connection?.flushSoon()
    }

    package func finish() {
        eventLoop.preconditionInEventLoop()
        guard isOpen else { return }
        guard case .body(let remaining) = state, remaining == 0 else {
            return abort("the response was ended before its body was complete")
        }
        sendHead()
        end(complete: true)
    }

    package func abort(_ reason: String) {
        eventLoop.preconditionInEventLoop()
        guard let connection else { return }
        connection.server.logger.debug(
            "response aborted",
            metadata: ["path": "\(request.target)", "reason": "\(reason)", "ip": "\(remoteAddress.ipText)"])
        keepsConnection = false
        end(complete: false)
    }

    package func send(_ head: ResponseHead, body: OpenContent.Body, range: Range<Int64>) {
        eventLoop.preconditionInEventLoop()
        guard let connection else { return }
        var head = head
        head.contentLength = Int64(range.count)
        guard request.method != .HEAD else {
            writeHead(head)
            return finish()
        }
        switch body {
        case .bytes(let bytes):
            guard range.lowerBound >= 0, range.upperBound <= Int64(bytes.readableBytes),
                let slice = bytes.getSlice(
                    at: bytes.readerIndex + Int(range.lowerBound), length: Int(range.upperBound - range.lowerBound))
            else { return fail(.internalServerError, "the content is shorter than its size in the store") }
            send(head, body: slice)
        case .file(let file):
            let limits = connection.server.limits
            guard range.upperBound <= file.size else {
                return fail(.internalServerError, "the content is shorter than its size in the store")
            }
            if range.count <= limits.inlineFileBytes {
                sendInline(head, file: file, range: range)
            } else {
                let transfer = FileTransfer(file: file, range: range, pieceBytes: limits.fileRegionBytes)
                self.transfer = transfer
                writeHead(head)
                sendHead()
                pump(transfer)
            }
        case .stream(let stream):
            guard range.upperBound <= stream.size else {
                return fail(.internalServerError, "the content is shorter than its size in the store")
            }
            relay(head, stream, range: range)
        }
    }

    package func whenWritable() -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        guard isOpen else { return eventLoop.makeFailedFuture(ResponseClosed()) }
        guard !isWritable else { return eventLoop.makeSucceededVoidFuture() }
        let promise = eventLoop.makePromise(of: Void.self)
        waiters.append(promise)
        return promise.futureResult
    }

    // MARK: Events of the connection

    /// The channel can take more bytes.
    func channelBecameWritable() {
        let waiters = self.waiters
        self.waiters = []
        for waiter in waiters { waiter.succeed() }
        if isOpen { delegate?.responseWriterIsWritable(self) }
    }

    /// The connection was closed.
    func connectionClosed() {
        guard isOpen else { return }
        let delegate = self.delegate
        keepsConnection = false
        end(complete: false)
        delegate?.responseWriterDidClose(self)
    }

    /// The client closed its side. A transfer from a peer is aborted, because a client that was killed cannot be told
    /// apart; a local response is still sent, as to a client that half-closes.
    func clientEndedInput() {
        if delegate != nil { connectionClosed() }
    }

    /// ``HTTPLimits/responseTimeout`` passed and there is no head yet.
    func responseTimedOut() {
        guard let connection, !isHeadWritten else { return }
        let delegate = self.delegate
        self.delegate = nil
        connection.closesAfterResponse = true
        fail(.gatewayTimeout, "no response in time")
        delegate?.responseWriterDidClose(self)
    }

    /// False if a running file transfer can no longer be completed.
    var transferIsIntact: Bool { transfer?.isIntact ?? true }

    // MARK: Body

    private func sendHead() {
        guard let head = unsentHead else { return }
        unsentHead = nil
        connection?.write(head)
    }

    /// Reads a small file into the write of the head, which is cheaper than a second system call on the socket.
    private func sendInline(_ head: ResponseHead, file: ContentFile, range: Range<Int64>) {
        do {
            let bytes = try file.read(at: range.lowerBound, count: range.count)
            guard bytes.readableBytes == range.count else {
                return fail(.internalServerError, "the content is shorter than its size in the store")
            }
            send(head, body: bytes)
        } catch {
            connection?.server.logger.warning(
                "cannot read content", metadata: ["path": "\(request.target)", "error": "\(error)"])
            fail(.internalServerError, "the content cannot be read")
        }
    }

    /// Sends the next piece once the socket has taken the one before.
    private func pump(_ transfer: FileTransfer) {
        guard let connection, case .body(let remaining) = state else { return }
        guard transfer.isIntact else { return abort("the file became shorter while it was sent") }
        guard let piece = transfer.nextPiece() else { return finish() }
        let count = Int64(piece.readableBytes)
        let written = eventLoop.makePromise(of: Void.self)
        // The transfer owns the file, so it has to live until the region is written.
        written.futureResult.assumeIsolated().whenComplete { result in
            guard case .success = result else { return }
            self.bodyBytes += count
            self.pump(transfer)
        }
        state = .body(remaining: remaining - count)
        connection.write(piece, promise: written)
        connection.flushSoon()
    }

    /// Sends a stream, and the head with its first bytes: a backend that fails before them is answered with a status.
    private func relay(_ head: ResponseHead, _ stream: ContentStream, range: Range<Int64>) {
        let task = Task {
            do {
                var isFirst = true
                for try await bytes in stream.open(range) {
                    if isFirst { self.eventLoop.execute { self.writeHead(head) } }
                    isFirst = false
                    try await self.writeAndWait(bytes)
                }
                let isEmpty = isFirst
                self.eventLoop.execute {
                    if isEmpty, !range.isEmpty {
                        return self.streamFailed(ContentStoreError.unavailable("the content ends at its first byte"))
                    }
                    if isEmpty { self.writeHead(head) }
                    self.finish()
                }
            } catch {
                self.eventLoop.execute { self.streamFailed(error) }
            }
        }
        onEnd { task.cancel() }
    }

    private func streamFailed(_ error: any Error) {
        guard let connection, !isHeadWritten else { return abort("\(error)") }
        connection.server.logger.warning(
            "cannot read content", metadata: ["path": "\(request.target)", "error": "\(error)"])
        fail(.serviceUnavailable, "the content cannot be read now")
    }

    private func end(complete: Bool) {
        guard let connection else { return }
        self.connection = nil
        state = .done
        unsentHead = nil
        transfer = nil
        delegate = nil
        let waiters = self.waiters
        let actions = endActions
        self.waiters = []
        endActions = []
        report(to: connection.server, complete: complete)
        // Before the next request, which may need the resources they release.
        for action in actions { action() }
        connection.responseEnded(keepsConnection: keepsConnection)
        for waiter in waiters { waiter.fail(ResponseClosed()) }
    }

    private func report(to server: ServerContext, complete: Bool) {
        let logs = server.logger.logLevel <= .debug
        guard observed || logs else { return }
        let duration = Duration(eventLoop.now - startedAt)
        if observed, let observer = server.observer {
            observer.requestEnded(
                RequestSummary(
                    handler: handler, method: request.method, target: request.target, status: status,
                    bodyBytes: bodyBytes, duration: duration, isComplete: complete, remoteAddress: remoteAddress,
                    reason: reason))
        }
        guard logs else { return }
        server.logger.debug(
            "request",
            metadata: [
                "path": "\(request.target)", "status": "\(status?.code ?? 0)", "method": "\(request.method.rawValue)",
                "latency": "\(duration)", "ip": "\(remoteAddress.ipText)", "handler": "\(handler)",
                "complete": "\(complete)",
            ])
    }
}

extension HTTPResponseStatus {
    /// RFC 9110 §6.4.1: these never have a body.
    fileprivate var mayHaveBody: Bool { code >= 200 && code != 204 && code != 304 }
}

extension Optional where Wrapped == SocketAddress {
    /// The address without port, an IPv4 address behind an IPv6 socket in its own form.
    package var ipText: String {
        guard let text = self?.ipAddress else { return "" }
        return text.hasPrefix("::ffff:") && text.contains(".") ? String(text.dropFirst(7)) : text
    }
}

/// Sends a range of a file piece by piece with `sendfile(2)`, so that back-pressure, progress and a file that shrinks
/// are seen between the pieces.
final class FileTransfer {
    private let file: ContentFile
    private let pieceBytes: Int64
    private var position: Int64
    private let end: Int64

    init(file: ContentFile, range: Range<Int64>, pieceBytes: Int) {
        self.file = file
        self.pieceBytes = Int64(pieceBytes)
        position = range.lowerBound
        end = range.upperBound
    }

    /// The next piece to send, or nil after the last one.
    func nextPiece() -> FileRegion? {
        guard position < end else { return nil }
        let next = min(end, position + pieceBytes)
        let piece = file.fileRegion(position..<next)
        position = next
        return piece
    }

    /// Whether the file still reaches to the end of the range. Otherwise `sendfile(2)` would return zero
    /// again and again.
    var isIntact: Bool {
        let size = try? file.fileRegion(0..<0).fileHandle.withUnsafeFileDescriptor { descriptor in
            var status = stat()
            return fstat(descriptor, &status) == 0 ? Int64(status.st_size) : -1
        }
        return (size ?? -1) >= end
    }
}
