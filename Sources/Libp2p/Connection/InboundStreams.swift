import Logging
import NIOCore

/// Serves the requests of one stream, one after the other.
///
/// The next request is read when the last has its answer and the peer has taken it, so a peer that sends requests
/// without reading the answers is stopped by its own window.
final class MessageServer: StreamHandler {
    private let environment: any ConnectionEnvironment
    private let handler: MessageHandler
    private var decoder: DelimitedMessageDecoder
    private var awaitingReply = false
    private var isReading = false

    init(environment: any ConnectionEnvironment, handler: @escaping MessageHandler) {
        self.environment = environment
        self.handler = handler
        decoder = DelimitedMessageDecoder(maximumLength: environment.limits.requestLength)
    }

    var bufferedBytes: Int { decoder.bufferedBytes }

    func opened(_ stream: MuxedStream) {
        stream.expire(after: environment.limits.messageStreamIdleTimeout)
    }

    func received(_ stream: MuxedStream) {
        // A handler that answers at once gets here again from within its own call.
        guard !isReading else { return }
        isReading = true
        defer { isReading = false }
        do {
            while !awaitingReply, stream.outbound.readableBytes == 0, !stream.isClosed {
                guard let message = try decoder.next(from: &stream.inbound) else { break }
                serve(message, stream)
            }
        } catch {
            stream.reset("\(error)")
            return
        }
        guard stream.isRemoteFinished, !awaitingReply, stream.inbound.readableBytes == 0, !stream.isClosed else {
            return
        }
        if decoder.isBetweenMessages { stream.finish() } else { stream.reset("ended inside a message") }
    }

    private func serve(_ message: [UInt8], _ stream: MuxedStream) {
        guard let handle = stream.connection.handle else { return }
        awaitingReply = true
        stream.expire(after: environment.limits.messageStreamIdleTimeout)
        let isolated = NIOLoopBound((server: self, stream: stream), eventLoop: stream.connection.eventLoop)
        let eventLoop = stream.connection.eventLoop
        let reply = MessageReply { outcome in
            if eventLoop.inEventLoop {
                isolated.value.server.finish(outcome, isolated.value.stream)
            } else {
                eventLoop.execute { isolated.value.server.finish(outcome, isolated.value.stream) }
            }
        }
        handler(InboundMessage(peer: handle.peer, remoteAddress: handle.remoteAddress, payload: message), reply)
    }

    private func finish(_ outcome: MessageReply.Outcome, _ stream: MuxedStream) {
        guard awaitingReply, !stream.isClosed else { return }
        awaitingReply = false
        switch outcome {
        case .response(let message):
            guard message.count <= environment.limits.responseLength else {
                stream.reset("answer of \(message.count) bytes")
                return
            }
            var buffer = ByteBuffer()
            DelimitedMessage.append(message, to: &buffer)
            stream.write(buffer)
        case .silence:
            break
        case .reset(let reason):
            stream.reset(reason)
            return
        }
        if !isReading { stream.resume() }
    }

    func drained(_ stream: MuxedStream) {
        if !isReading, stream.inbound.readableBytes > 0 || stream.isRemoteFinished { stream.resume() }
    }

    func expired(_ stream: MuxedStream) {
        stream.reset("idle: no request in time")
    }

    func closed(_ stream: MuxedStream, _ end: StreamEnd) {
        if case .reset(let reason) = end {
            environment.logger.debug(
                "reset a request stream",
                metadata: [
                    "peer": "\(stream.connection.handle?.peer.description ?? "")", "reason": "\(reason)",
                ])
        }
    }
}

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

/// A request that came in on a message protocol.
package struct InboundMessage: Sendable {
    /// The sender, authenticated by the connection's handshake.
    package let peer: PeerID
    /// Where the connection comes from.
    package let remoteAddress: IPAddress
    /// The message without its length prefix.
    package let payload: [UInt8]
}

/// The one answer to an ``InboundMessage``; only the first call counts. May be used from any thread.
///
/// Until one of the calls is made, the stream's next message is not read.
package struct MessageReply: Sendable {
    enum Outcome: Sendable {
        case response([UInt8])
        case silence
        case reset(String)
    }

    let finish: @Sendable (Outcome) -> Void

    /// Sends an answer.
    package func respond(_ message: [UInt8]) { finish(.response(message)) }
    /// Sends no answer and goes on with the stream's next message.
    package func ignore() { finish(.silence) }
    /// Resets the stream; the reason goes to the log.
    package func reset(_ reason: String) { finish(.reset(reason)) }
}

/// Answers the requests of one protocol. Called on the connection's event loop, in order for one stream: must not
/// block; slow work goes elsewhere and calls the reply later.
package typealias MessageHandler = @Sendable (_ message: InboundMessage, _ reply: MessageReply) -> Void
