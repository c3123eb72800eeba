import NIOCore

/// A stream the peer opened, until its protocol is agreed; then the protocol's handler takes over.
final class InboundNegotiation: StreamHandler {
    private let environment: any ConnectionEnvironment
    private var responder: MultistreamResponder

    init(environment: any ConnectionEnvironment) {
        self.environment = environment
        responder = MultistreamResponder(maximumProposals: environment.limits.negotiationProposals)
    }

    func opened(_ stream: MuxedStream) {
        var output = ByteBuffer()
        responder.start(into: &output)
        stream.write(output)
        stream.expire(after: environment.limits.negotiationTimeout)
    }

    func received(_ stream: MuxedStream) {
        var output = ByteBuffer()
        let agreed: String?
        do {
            let supported = environment.protocols
            agreed = try responder.receive(&stream.inbound, output: &output) { supported.contains($0) }
        } catch {
            stream.reset("\(error)")
            return
        }
        if output.readableBytes > 0 { stream.write(output) }
        if let agreed {
            handOver(stream, agreed)
        } else if stream.isRemoteFinished {
            stream.reset("ended before a protocol was agreed")
        }
    }

    private func handOver(_ stream: MuxedStream, _ protocolID: String) {
        let limits = environment.limits
        let handler: any StreamHandler
        let category: Connection.StreamCategory
        let maximum: Int
        switch protocolID {
        case IdentifyMessage.protocolID:
            (handler, category, maximum) = (
                IdentifyResponder(environment: environment), .identify, limits.identifyStreams
            )
        case IdentifyMessage.pushProtocolID:
            handler = IdentifyPushReceiver(environment: environment)
            (category, maximum) = (.identify, limits.identifyStreams)
        case PingResponder.protocolID:
            (handler, category, maximum) = (PingResponder(), .ping, limits.pingStreams)
        default:
            guard let serve = environment.messageHandler(for: protocolID) else {
                stream.reset("no handler")
                return
            }
            handler = MessageServer(environment: environment, handler: serve)
            (category, maximum) = (.message(protocolID), limits.messageStreams)
        }
        guard stream.connection.categorize(stream, as: category, maximum: maximum) else {
            stream.reset("too many streams of \(protocolID)")
            return
        }
        stream.deadline = nil
        stream.handler = handler
        handler.opened(stream)
        if !stream.isClosed, stream.inbound.readableBytes > 0 || stream.isRemoteFinished { handler.received(stream) }
    }

    func closed(_ stream: MuxedStream, _ end: StreamEnd) {}
}
