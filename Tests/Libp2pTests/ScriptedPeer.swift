import Foundation
import NIOCore
import NIOPosix
import PeerTestKit

@testable import Libp2p

/// A peer played by a test, byte by byte, over a real socket. Used by one task.
final class ScriptedPeer {
    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let inbox: Inbox<ByteBuffer>

        init(_ inbox: Inbox<ByteBuffer>) {
            self.inbox = inbox
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { inbox.put(unwrapInboundIn(data)) }
        func channelInactive(context: ChannelHandlerContext) { inbox.close() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    let channel: any Channel
    private let inbox: Inbox<ByteBuffer>
    private var input = ByteBuffer()
    private var plaintext = ByteBuffer()
    private var transport: NoiseTransport?
    var session = YamuxSession(isClient: true, maximumInboundStreams: 1000, maximumOutboundStreams: 1_000_000)
    private(set) var peer: PeerID?

    private init(_ channel: any Channel, _ inbox: Inbox<ByteBuffer>) {
        self.channel = channel
        self.inbox = inbox
    }

    /// - Parameter source: The address to come from.
    static func connect(to host: Libp2p.Host, from source: String? = nil) async throws -> ScriptedPeer {
        guard let endpoint = host.listenAddresses.first?.tcpEndpoint else { throw HostError.notStarted }
        let inbox = Inbox<ByteBuffer>()
        var bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        if let source { bootstrap = bootstrap.bind(to: try SocketAddress(ipAddress: source, port: 0)) }
        let channel =
            try await bootstrap
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(inbox))
                }
            }
            .connect(host: endpoint.address.description, port: Int(endpoint.port)).get()
        return ScriptedPeer(channel, inbox)
    }

    // MARK: Raw bytes

    func send(_ bytes: [UInt8]) async throws {
        try await channel.writeAndFlush(ByteBuffer(bytes: bytes))
    }

    /// More bytes from the host; false when it closed the connection.
    func receive() async -> Bool {
        guard var bytes = await inbox.next() else { return false }
        input.writeBuffer(&bytes)
        return true
    }

    /// Waits until the host closes the connection.
    func waitForClose() async {
        while await inbox.next() != nil {}
    }

    func close() async {
        try? await channel.close()
    }

    /// Closes as Go does with dialled sockets: by a TCP reset.
    func hangUp() async throws {
        try await (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).get()
        try await channel.close()
    }

    // MARK: Upgrade

    /// Negotiates as Go dials: TLS first, then Noise; with `upToMessage2` it stops after message 2 has come.
    func upgradeLikeGo(
        identity: NodeIdentity = NodeIdentity(), expecting expected: PeerID? = nil,
        muxers: [String]? = ["/yamux/1.0.0"],
        upToMessage2: Bool = false
    ) async throws {
        var output = ByteBuffer()
        var initiator = MultistreamInitiator(["/tls/1.0.0", "/noise"])
        initiator.start(into: &output)
        try await flush(&output)
        while true {
            let outcome = try initiator.receive(&input, output: &output)
            try await flush(&output)
            if outcome == .agreed("/noise") { break }
            try await needMore()
        }
        var handshake = try NoiseHandshake(
            role: .initiator, identity: identity, expectedPeer: expected, muxers: muxers)
        try handshake.start(into: &output)
        try await flush(&output)
        if upToMessage2 {
            try await needMore()
            return
        }
        while true {
            if let result = try handshake.receive(&input, output: &output) {
                try await flush(&output)
                transport = NoiseTransport(sending: result.sending, receiving: result.receiving)
                peer = result.peer
                return
            }
            try await needMore()
        }
    }

    private func flush(_ output: inout ByteBuffer) async throws {
        guard output.readableBytes > 0 else { return }
        try await channel.writeAndFlush(output)
        output.clear()
    }

    private func needMore() async throws {
        guard await receive() else { throw HostError.connectionClosed("by the host") }
    }

    // MARK: Streams

    /// Encrypts and sends: frames made by hand, or what the session has to say.
    func sendPlain(_ bytes: [UInt8]) async throws {
        var plain = ByteBuffer(bytes: bytes)
        var output = ByteBuffer()
        try transport?.encrypt(&plain, into: &output)
        try await flush(&output)
    }

    /// For a peer whose host may not be reading any more.
    func sendPlainWithoutWaiting(_ bytes: [UInt8]) throws {
        var plain = ByteBuffer(bytes: bytes)
        var output = ByteBuffer()
        try transport?.encrypt(&plain, into: &output)
        channel.writeAndFlush(output, promise: nil)
    }

    func sendSession() async throws {
        try await sendPlain(Array(session.takeOutput().readableBytesView))
    }

    /// The next event; nil when the host closed the connection.
    func nextEvent() async throws -> YamuxSession.Event? {
        while true {
            if let event = try session.nextEvent(from: &plaintext) { return event }
            if try transport?.decryptNext(from: &input, into: &plaintext) == true { continue }
            guard await receive() else { return nil }
        }
    }

    /// The next decrypted bytes, not looked at.
    func nextPlain() async throws -> [UInt8]? {
        while true {
            var bytes = ByteBuffer()
            if try transport?.decryptNext(from: &input, into: &bytes) == true { return Array(bytes.readableBytesView) }
            guard await receive() else { return nil }
        }
    }

    /// Opens a stream as Go does: SYN on an empty window update, then header, protocol and payload in one data frame.
    func openLazily(_ protocolID: String, _ payload: [UInt8] = []) async throws -> UInt32 {
        guard let id = session.open() else { throw HostError.limitReached("streams") }
        var first = ByteBuffer()
        MultistreamInitiator([protocolID]).start(into: &first)
        first.writeBytes(payload)
        while first.readableBytes > 0, session.write(&first, on: id) > 0 {}
        try await sendSession()
        return id
    }

    /// All bytes of a stream up to its end or reset; the host's other streams are reset, its identify included.
    func collect(_ id: UInt32) async throws -> (bytes: [UInt8], wasReset: Bool) {
        var bytes: [UInt8] = []
        while let event = try await nextEvent() {
            switch event {
            case .data(id, let chunk):
                bytes.append(contentsOf: chunk.readableBytesView)
                session.consumed(chunk.readableBytes, on: id)
                try await sendSession()
            case .finished(id): return (bytes, false)
            case .reset(id, _): return (bytes, true)
            case .opened(let other): session.reset(other)
            default: break
            }
        }
        throw HostError.connectionClosed("by the host")
    }

    /// What multistream says before the payload of an accepted stream.
    static func acceptance(_ protocolID: String) -> [UInt8] {
        var buffer = ByteBuffer()
        MultistreamToken.append(MultistreamToken.header, to: &buffer)
        MultistreamToken.append(protocolID, to: &buffer)
        return Array(buffer.readableBytesView)
    }
}
