import NIOCore

/// What all streams of our own have in common: agreeing on the protocol, at leisure or lazily.
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
    /// The one place where a failure ends up, before or after the stream ended.
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
