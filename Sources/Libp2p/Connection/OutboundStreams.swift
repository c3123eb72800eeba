import NIOCore

/// A stream opened by this host: negotiates the protocol, then sends its payload; lazily, it sends both at once.
///
/// Lazily means that the payload goes out together with the proposal, because the peer's identify listed the protocol.
class OutboundStream: StreamHandler {
    let protocolID: String
    let isLazy: Bool
    private var initiator: MultistreamInitiator
    private(set) var isAgreed = false

    init(protocolID: String, isLazy: Bool) {
        self.protocolID = protocolID
        self.isLazy = isLazy
        initiator = MultistreamInitiator([protocolID])
    }

    var bufferedBytes: Int { 0 }

    final func opened(_ stream: MuxedStream) {
        began(stream)
        var output = ByteBuffer()
        initiator.start(into: &output)
        stream.write(output)
        if isLazy { sendPayload(stream) }
    }

    final func received(_ stream: MuxedStream) {
        if !isAgreed {
            var output = ByteBuffer()
            do {
                switch try initiator.receive(&stream.inbound, output: &output) {
                case .needsMore:
                    if stream.isRemoteFinished { fail(stream, .streamReset("ended before the protocol was agreed")) }
                    return
                case .refused:
                    fail(stream, .protocolNotSupported(protocolID))
                    return
                case .agreed:
                    isAgreed = true
                }
            } catch {
                fail(stream, .badAnswer("\(error)"))
                return
            }
            if !isLazy { sendPayload(stream) }
        }
        if !stream.isClosed { receivePayload(stream) }
    }

    /// Sets the deadline.
    func began(_ stream: MuxedStream) {}
    func sendPayload(_ stream: MuxedStream) {}
    func receivePayload(_ stream: MuxedStream) {}
    func drained(_ stream: MuxedStream) {}
    func expired(_ stream: MuxedStream) { fail(stream, .timedOut(protocolID)) }
    /// Called with every failure, before or after the stream has ended.
    func failed(_ error: HostError) {}

    final func fail(_ stream: MuxedStream, _ error: HostError) {
        failed(error)
        stream.reset("\(error)")
    }

    func closed(_ stream: MuxedStream, _ end: StreamEnd) {
        switch end {
        case .connectionClosed(let reason): failed(.connectionClosed(reason))
        case .reset(let reason): failed(.limitReached(reason))
        case .finished, .resetByPeer: failed(.streamReset("\(end)"))
        }
    }
}

/// One request and its answer on a stream of their own.
final class RequestStream: OutboundStream {
    private let message: [UInt8]
    private let limits: HostLimits
    private let completion: Completion<[UInt8]>
    private var decoder: DelimitedMessageDecoder
    private var isDone = false
    private var startedAt = NIODeadline.distantPast

    init(
        _ message: [UInt8], protocolID: String, isLazy: Bool, limits: HostLimits, completion: Completion<[UInt8]>
    ) {
        self.message = message
        self.limits = limits
        self.completion = completion
        decoder = DelimitedMessageDecoder(maximumLength: limits.responseLength)
        super.init(protocolID: protocolID, isLazy: isLazy)
    }

    override var bufferedBytes: Int { decoder.bufferedBytes }

    override func began(_ stream: MuxedStream) {
        startedAt = stream.connection.eventLoop.now
        stream.expire(after: limits.requestTimeout)
    }

    override func sendPayload(_ stream: MuxedStream) {
        var buffer = ByteBuffer()
        DelimitedMessage.append(message, to: &buffer)
        stream.write(buffer)
    }

    override func receivePayload(_ stream: MuxedStream) {
        guard !isDone else {
            // Whatever else comes is discarded until the peer's FIN.
            stream.inbound.moveReaderIndex(forwardBy: stream.inbound.readableBytes)
            return
        }
        do {
            if let answer = try decoder.next(from: &stream.inbound) {
                isDone = true
                completion.succeed(answer)
                stream.finish()
            } else if stream.isRemoteFinished {
                fail(stream, .streamReset("ended without an answer"))
            }
        } catch {
            fail(stream, .badAnswer("\(error)"))
        }
    }

    override func expired(_ stream: MuxedStream) {
        guard !isDone else {
            stream.reset("no FIN from the peer in time")
            return
        }
        let connection = stream.connection
        fail(stream, .timedOut("no answer to a request of \(protocolID)"))
        // Not one byte in all that time: the connection is dead, and later requests should not wait to find out.
        if connection.lastReceived < startedAt { connection.close("no answer, and nothing else received") }
    }

    override func failed(_ error: HostError) {
        completion.fail(error)
    }
}

/// Sends messages back to back on one stream, drawn from a sequence as they can be sent, then FIN, and waits for the peer's.
final class BatchStream: OutboundStream {
    /// Bytes taken from the sequence ahead of what has been sent.
    private static let chunkSize = 32 << 10

    private let next: () -> [UInt8]?
    private let limits: HostLimits
    private let completion: Completion<Void>

    init(
        _ next: @escaping () -> [UInt8]?, protocolID: String, isLazy: Bool, limits: HostLimits,
        completion: Completion<Void>
    ) {
        self.next = next
        self.limits = limits
        self.completion = completion
        super.init(protocolID: protocolID, isLazy: isLazy)
    }

    override func began(_ stream: MuxedStream) {
        stream.expire(after: limits.sendTimeout)
    }

    override func sendPayload(_ stream: MuxedStream) {
        var buffer = ByteBuffer()
        while buffer.readableBytes < Self.chunkSize {
            guard let message = next() else {
                if buffer.readableBytes > 0 { stream.write(buffer) }
                stream.finish()
                return
            }
            DelimitedMessage.append(message, to: &buffer)
        }
        stream.write(buffer)
    }

    override func drained(_ stream: MuxedStream) {
        stream.expire(after: limits.sendTimeout)
        // The negotiation alone has been sent when the protocol is not agreed and not taken for granted.
        if isLazy || isAgreed { sendPayload(stream) }
    }

    override func receivePayload(_ stream: MuxedStream) {
        stream.expire(after: limits.sendTimeout)
        // Some implementations answer although no answer is due.
        stream.inbound.moveReaderIndex(forwardBy: stream.inbound.readableBytes)
        guard stream.isRemoteFinished else { return }
        if stream.finishRequested {
            completion.succeed(())
        } else {
            fail(stream, .streamReset("ended by the peer before all was sent"))
        }
    }

    override func failed(_ error: HostError) {
        completion.fail(error)
    }
}
