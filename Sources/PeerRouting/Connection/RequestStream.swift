import NIOCore

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
            // Nothing more is asked for: whatever comes is thrown away until the peer's end.
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
            stream.reset("not ended by the peer")
            return
        }
        let connection = stream.connection
        fail(stream, .timedOut("no answer to a request of \(protocolID)"))
        // Not one byte in all that time: the peer is gone, and later requests should not wait to find out.
        if connection.lastReceived < startedAt { connection.close("no answer, nor any sign of life") }
    }

    override func failed(_ error: HostError) {
        completion.fail(error)
    }
}
