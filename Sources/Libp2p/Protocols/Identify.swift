import Logging
import NIOCore

/// Answers identify: one message, then FIN, which the requester waits for.
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

/// Collects the messages of one identify answer or push, up to the sender's FIN.
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

    /// Takes what has been received; returns the merged message after the sender's FIN.
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

/// Receives an identify push.
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

/// Requests identify; done once on every connection.
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

/// Sends an identify push: our addresses or protocols have changed.
final class IdentifyPusher: OutboundStream {
    private let message: [UInt8]
    private let limits: HostLimits
    /// Succeeds when the stream has ended, in whatever way: a push that failed is not repeated.
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

/// The identify message: the sender's protocols and listen addresses.
/// See https://github.com/libp2p/specs/tree/master/identify
struct IdentifyMessage: Equatable, Sendable {
    static let protocolID = "/ipfs/id/1.0.0"
    static let pushProtocolID = "/ipfs/id/push/1.0.0"
    /// Longest name or version kept, in bytes.
    static let maximumTextLength = 256
    /// Longest message sent, in bytes: what every implementation accepts as one (Go refuses more than 8 KiB).
    static let maximumLength = 4 << 10
    /// Most addresses in a message sent: what peers keep.
    static let maximumAddresses = 64

    /// The protobuf form of the sender's key; the handshake is the authority, this only a claim.
    var publicKey: [UInt8]?
    var listenAddresses: [Multiaddr] = []
    var protocols: [String] = []
    /// The receiver's address as the sender sees it.
    var observedAddress: Multiaddr?
    var protocolVersion = ""
    var agentVersion = ""

    var encoded: [UInt8] {
        var writer = ProtobufWriter(reservingCapacity: 512)
        if let publicKey { writer.bytes(1, publicKey) }
        for address in listenAddresses { writer.bytes(2, address.bytes) }
        for name in protocols { writer.string(3, name) }
        if let observedAddress { writer.bytes(4, observedAddress.bytes) }
        writer.string(5, protocolVersion)
        writer.string(6, agentVersion)
        return writer.bytes
    }

    /// The first of the addresses, as many as one message may have.
    ///
    /// - Parameter room: Bytes the message has for them.
    static func fitting(_ addresses: [Multiaddr], room: Int) -> [Multiaddr] {
        var left = room
        return Array(
            addresses.prefix(maximumAddresses).prefix { address in
                var writer = ProtobufWriter(reservingCapacity: address.bytes.count + 4)
                writer.bytes(2, address.bytes)
                left -= writer.bytes.count
                return left >= 0
            })
    }

    /// Merges one message of an answer that may come in several: lists grow up to their limits, the rest is replaced.
    ///
    /// An address that cannot be parsed is left out, the others are kept.
    mutating func merge(
        parsing bytes: [UInt8], maximumAddresses: Int, maximumProtocols: Int
    ) throws(WireFormatError) {
        var reader = ProtobufReader(bytes)
        while let field = try reader.next() {
            guard case .bytes(let value) = field.value else { continue }
            switch field.number {
            case 1: publicKey = Array(value)
            case 2:
                if listenAddresses.count < maximumAddresses, let address = try? Multiaddr(bytes: value) {
                    listenAddresses.append(address)
                }
            case 3:
                let name = try ProtobufReader.string(value)
                if protocols.count < maximumProtocols, name.utf8.count < MultistreamToken.maximumLength {
                    protocols.append(name)
                }
            case 4: observedAddress = try? Multiaddr(bytes: value)
            case 5: protocolVersion = String(decoding: value.prefix(Self.maximumTextLength), as: UTF8.self)
            case 6: agentVersion = String(decoding: value.prefix(Self.maximumTextLength), as: UTF8.self)
            default: break
            }
        }
    }

    /// The addresses that are valid for this peer from a host that is connected to it at `remote`: those of another peer and those
    /// whose reach is smaller than the connection's are left out.
    func usableAddresses(of peer: PeerID, remote: IPAddress, allowLoopback: Bool) -> [Multiaddr] {
        var seen: Set<Multiaddr> = []
        return listenAddresses.compactMap { $0.strippingPeerID(peer) }.filter { address in
            guard let endpoint = address.tcpEndpoint, endpoint.zone == nil, endpoint.port != 0 else { return false }
            let ip = endpoint.address
            if ip.isUnspecified || ip.isMulticast || ip.isLinkLocal || ip.isBroadcast { return false }
            if ip.isLoopback, !(allowLoopback && remote.isLoopback) { return false }
            let remoteIsPublic = !(remote.isPrivate || remote.isLoopback || remote.isLinkLocal)
            if remoteIsPublic, ip.isPrivate { return false }
            return seen.insert(address).inserted
        }
    }
}
