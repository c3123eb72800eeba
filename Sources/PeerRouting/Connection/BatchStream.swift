import NIOCore

/// Messages sent back to back on one stream, drawn as they can be sent, then our end, then the wait for the peer's.
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
        // Some implementations answer; nobody asked.
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
