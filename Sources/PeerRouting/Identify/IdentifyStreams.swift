import Logging
import NIOCore

/// Answers identify: one message, then our end, which the asker waits for.
final class IdentifyResponder: StreamHandler {
    private let environment: any ConnectionEnvironment

    init(environment: any ConnectionEnvironment) {
        self.environment = environment
    }

    func opened(_ stream: MuxedStream) {
        guard let handle = stream.connection.handle else { return }
        var buffer = ByteBuffer()
        DelimitedMessage.append(environment.identifyMessage(for: handle), to: &buffer)
        stream.write(buffer)
        stream.finish()
        stream.expire(after: environment.limits.identifyTimeout)
    }

    func received(_ stream: MuxedStream) {
        stream.inbound.moveReaderIndex(forwardBy: stream.inbound.readableBytes)
    }

    func closed(_ stream: MuxedStream, _ end: StreamEnd) {}
}

/// Collects the messages of one identify answer or push, up to the sender's end.
struct IdentifyCollector {
    private let limits: HostLimits
    private var decoder: DelimitedMessageDecoder
    private var message = IdentifyMessage()
    private var count = 0

    init(limits: HostLimits) {
        self.limits = limits
        decoder = DelimitedMessageDecoder(maximumLength: limits.identifyMessageLength)
    }

    var bufferedBytes: Int { decoder.bufferedBytes }

    /// Takes what has come; the merged message once the end is there.
    mutating func receive(_ stream: MuxedStream) throws(WireFormatError) -> IdentifyMessage? {
        while let bytes = try decoder.next(from: &stream.inbound) {
            count += 1
            guard count <= limits.identifyMessages else {
                throw WireFormatError("more than \(limits.identifyMessages) identify messages")
            }
            try message.merge(
                parsing: bytes, maximumAddresses: limits.addressesPerPeer, maximumProtocols: limits.identifyProtocols)
        }
        guard stream.isRemoteFinished else { return nil }
        guard decoder.isBetweenMessages, count > 0 else { throw WireFormatError("identify ended too early") }
        return message
    }
}

/// Takes a push from a peer.
final class IdentifyPushReceiver: StreamHandler {
    private let environment: any ConnectionEnvironment
    private var collector: IdentifyCollector

    init(environment: any ConnectionEnvironment) {
        self.environment = environment
        collector = IdentifyCollector(limits: environment.limits)
    }

    var bufferedBytes: Int { collector.bufferedBytes }

    func opened(_ stream: MuxedStream) {
        stream.expire(after: environment.limits.identifyTimeout)
    }

    func received(_ stream: MuxedStream) {
        do {
            guard let message = try collector.receive(stream), let handle = stream.connection.handle else { return }
            environment.identified(handle, message, isPush: true)
            stream.finish()
        } catch {
            stream.reset("\(error)")
        }
    }

    func closed(_ stream: MuxedStream, _ end: StreamEnd) {}
}

/// Asks a peer who it is; done on every connection.
final class IdentifyRequester: OutboundStream {
    private let environment: any ConnectionEnvironment
    private var collector: IdentifyCollector
    private(set) var isDone = false

    init(environment: any ConnectionEnvironment) {
        self.environment = environment
        collector = IdentifyCollector(limits: environment.limits)
        super.init(protocolID: IdentifyMessage.protocolID, isLazy: false)
    }

    override var bufferedBytes: Int { collector.bufferedBytes }

    override func began(_ stream: MuxedStream) {
        stream.expire(after: environment.limits.identifyTimeout)
    }

    override func receivePayload(_ stream: MuxedStream) {
        guard !isDone else { return }
        do {
            guard let message = try collector.receive(stream), let handle = stream.connection.handle else { return }
            isDone = true
            stream.finish()
            environment.identified(handle, message, isPush: false)
        } catch {
            fail(stream, .badAnswer("\(error)"))
        }
    }

    override func failed(_ error: HostError) {
        guard !isDone else { return }
        isDone = true
        environment.logger.debug("identify failed", metadata: ["reason": "\(error)"])
    }
}

/// Tells a peer that our addresses, or what we speak, changed.
final class IdentifyPusher: OutboundStream {
    private let message: [UInt8]
    private let limits: HostLimits
    /// Succeeds when the stream has ended, in whatever way: there is nothing to be done about a push that failed.
    private let ended: Completion<Void>?

    init(_ message: [UInt8], limits: HostLimits, ended: Completion<Void>? = nil) {
        self.message = message
        self.limits = limits
        self.ended = ended
        super.init(protocolID: IdentifyMessage.pushProtocolID, isLazy: true)
    }

    override func began(_ stream: MuxedStream) {
        stream.expire(after: limits.identifyTimeout)
    }

    override func sendPayload(_ stream: MuxedStream) {
        var buffer = ByteBuffer()
        DelimitedMessage.append(message, to: &buffer)
        stream.write(buffer)
        stream.finish()
    }

    override func receivePayload(_ stream: MuxedStream) {
        stream.inbound.moveReaderIndex(forwardBy: stream.inbound.readableBytes)
    }

    override func failed(_ error: HostError) {
        ended?.succeed(())
    }
}
