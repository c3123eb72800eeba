import NIOCore

/// Echoes what comes, until FIN or a timeout. See https://github.com/libp2p/specs/blob/master/ping/ping.md
final class PingResponder: StreamHandler {
    static let protocolID = "/ipfs/ping/1.0.0"
    /// Bytes of one ping.
    static let size = 32

    func opened(_ stream: MuxedStream) {
        stream.expire(after: stream.connection.limits.pingTimeout)
    }

    func received(_ stream: MuxedStream) {
        // While an echo waits to be sent nothing more is read: the peer's window holds it back.
        if stream.outbound.readableBytes == 0 {
            let whole = stream.inbound.readableBytes / Self.size * Self.size
            if whole > 0, let echo = stream.inbound.readSlice(length: whole) {
                stream.expire(after: stream.connection.limits.pingTimeout)
                stream.write(echo)
            }
        }
        if stream.isRemoteFinished, stream.inbound.readableBytes < Self.size { stream.finish() }
    }

    func drained(_ stream: MuxedStream) {
        if stream.inbound.readableBytes >= Self.size || stream.isRemoteFinished { stream.resume() }
    }

    func closed(_ stream: MuxedStream, _ end: StreamEnd) {}
}

/// Measures one round trip.
final class PingRequester: OutboundStream {
    private let limits: HostLimits
    private let completion: Completion<Duration>
    private let payload: [UInt8]
    private var sentAt: NIODeadline?

    init(limits: HostLimits, completion: Completion<Duration>) {
        self.limits = limits
        self.completion = completion
        payload = (0..<PingResponder.size).map { _ in UInt8.random(in: 0...255) }
        super.init(protocolID: PingResponder.protocolID, isLazy: false)
    }

    override func began(_ stream: MuxedStream) {
        stream.expire(after: limits.pingTimeout)
    }

    override func sendPayload(_ stream: MuxedStream) {
        sentAt = .now()
        stream.write(ByteBuffer(bytes: payload))
    }

    override func receivePayload(_ stream: MuxedStream) {
        guard let sentAt, stream.inbound.readableBytes >= payload.count else {
            if stream.isRemoteFinished { fail(stream, .streamReset("ended without an answer")) }
            return
        }
        guard stream.inbound.readBytes(length: payload.count) == payload else {
            fail(stream, .badAnswer("a ping came back changed"))
            return
        }
        completion.succeed(.nanoseconds((NIODeadline.now() - sentAt).nanoseconds))
        self.sentAt = nil
        stream.finish()
    }

    override func failed(_ error: HostError) {
        completion.fail(error)
    }
}
