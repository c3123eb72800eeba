import Logging
import NIOCore

/// Serves the requests of one stream, one after the other.
///
/// The next request is read when the last has its answer and the peer has taken it, so a peer that asks without
/// reading is held back by its own window.
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
        stream.reset("no request for a while")
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
