import Logging
import NIOConcurrencyHelpers
import NIOCore
import PeerTestKit
import TestSupport
import Testing

@testable import Libp2p

/// What Go nodes do on the wire, played by hand.
@Suite(.timeLimit(.minutes(10))) struct GoLikeClientTests {
    private let node: TestHost

    init() throws {
        node = try TestHost()
    }

    private func connected(_ body: (ScriptedPeer) async throws -> Void) async throws {
        try await withHosts(node) {
            let go = try await ScriptedPeer.connect(to: node.host)
            try await go.upgradeLikeGo(expecting: node.id)
            try await body(go)
            await go.close()
        }
    }

    private func delimited(_ text: String) -> [UInt8] { DelimitedMessage.encode(Array(text.utf8)) }

    /// TLS proposed first; then header, protocol and request in one frame.
    @Test func negotiationAndRequestInOneFrame() async throws {
        try await connected { go in
            let id = try await go.openLazily(TestHost.protocolID, delimited("hello"))
            go.session.finish(id)
            try await go.sendSession()
            let (bytes, wasReset) = try await go.collect(id)
            #expect(!wasReset)
            #expect(bytes == ScriptedPeer.acceptance(TestHost.protocolID) + delimited("hello"))
        }
    }

    /// Every stream is acknowledged exactly once: Go counts.
    @Test func oneAcknowledgementPerStream() async throws {
        try await connected { go in
            let id = try await go.openLazily(TestHost.protocolID, delimited("hello"))
            var frames = ByteBuffer()
            var acknowledgements = 0
            var answered = 0
            while answered == 0 {
                frames.writeBytes(try #require(try await go.nextPlain()))
                while let start = frames.getSlice(at: frames.readerIndex, length: 12) {
                    var peek = start
                    let header = try #require(try YamuxHeader(from: &peek))
                    let length = header.type == .data ? Int(header.value) : 0
                    guard frames.readableBytes >= 12 + length else { break }
                    frames.moveReaderIndex(forwardBy: 12 + length)
                    guard header.streamID == id else { continue }
                    if header.flags.contains(.ack) { acknowledgements += 1 }
                    if length > 30 { answered += 1 }
                }
            }
            #expect(acknowledgements == 1)
        }
    }

    /// A whole batch of records and then a question, all on the stream Go keeps: only the question is answered.
    @Test func fiveThousandSilentMessagesThenARequest() async throws {
        try await connected { go in
            let id = try await go.openLazily(TestHost.protocolID)
            let record = DelimitedMessage.encode([UInt8(ascii: "A")] + [UInt8](repeating: 1, count: 119))
            var batch = ByteBuffer()
            for _ in 0..<5000 { batch.writeBytes(record) }
            batch.writeBytes(delimited("question"))
            var answer: [UInt8] = []
            let expected = ScriptedPeer.acceptance(TestHost.protocolID) + delimited("question")
            while answer.count < expected.count {
                while go.session.write(&batch, on: id) > 0 { try await go.sendSession() }
                guard let event = try await go.nextEvent() else { break }
                if case .data(id, let chunk) = event { answer.append(contentsOf: chunk.readableBytesView) }
            }
            #expect(answer == expected)
            #expect(node.silentCount == 5000)
        }
    }

    @Test func manyRequestsOnOneStreamAreAnsweredInOrder() async throws {
        try await connected { go in
            let texts = (0..<300).map { $0 % 7 == 0 ? "Later \($0)" : "now \($0)" }
            let id = try await go.openLazily(TestHost.protocolID, texts.flatMap { delimited($0) })
            go.session.finish(id)
            try await go.sendSession()
            let (bytes, wasReset) = try await go.collect(id)
            #expect(!wasReset)
            #expect(bytes == ScriptedPeer.acceptance(TestHost.protocolID) + texts.flatMap { delimited($0) })
        }
    }

    /// An unknown protocol is refused, and the stream can go on with another.
    @Test func unknownProtocolThenAKnownOne() async throws {
        try await connected { go in
            let id = try await go.openLazily("/unknown/1.0.0")
            var next = ByteBuffer()
            MultistreamToken.append(TestHost.protocolID, to: &next)
            next.writeBytes(delimited("x"))
            _ = go.session.write(&next, on: id)
            go.session.finish(id)
            try await go.sendSession()
            let (bytes, _) = try await go.collect(id)
            var expected = ByteBuffer()
            for token in [MultistreamToken.header, "na", TestHost.protocolID] {
                MultistreamToken.append(token, to: &expected)
            }
            expected.writeBytes(delimited("x"))
            #expect(bytes == Array(expected.readableBytesView))
        }
    }

    /// Go reads identify to its end, so the end must come.
    @Test func identifyEndsWithFIN() async throws {
        try await connected { go in
            let id = try await go.openLazily(IdentifyMessage.protocolID)
            let (bytes, wasReset) = try await go.collect(id)
            #expect(!wasReset)
            var rest = ByteBuffer(bytes: bytes.dropFirst(ScriptedPeer.acceptance(IdentifyMessage.protocolID).count))
            var decoder = DelimitedMessageDecoder(maximumLength: 4096)
            var message = IdentifyMessage()
            try message.merge(
                parsing: try #require(try value { try decoder.next(from: &rest) }), maximumAddresses: 64,
                maximumProtocols: 64)
            #expect(message.protocols.contains(TestHost.protocolID))
            #expect(message.listenAddresses == node.host.advertisedAddresses)
            #expect(message.publicKey == node.host.configuration.identity.publicKey.encoded)
            #expect(message.observedAddress?.ipAddress == .loopbackV4)
        }
    }

    /// Go answers identify in two messages when it is long.
    @Test func splitIdentifyIsMerged() async throws {
        let identity = NodeIdentity()
        try await withHosts(node) {
            let go = try await ScriptedPeer.connect(to: node.host)
            try await go.upgradeLikeGo(identity: identity)
            while let event = try await go.nextEvent() {
                guard case .finished = event else {
                    guard case .opened(let id) = event else { continue }
                    var answer = ByteBuffer(bytes: ScriptedPeer.acceptance(IdentifyMessage.protocolID))
                    let address = try Multiaddr(parsing: "/ip4/10.0.0.7/tcp/5001")
                    for part in [
                        IdentifyMessage(listenAddresses: [address], protocols: ["/one"]),
                        IdentifyMessage(protocols: ["/two"]),
                    ] {
                        answer.writeBytes(DelimitedMessage.encode(part.encoded))
                    }
                    _ = go.session.write(&answer, on: id)
                    go.session.finish(id)
                    try await go.sendSession()
                    break
                }
            }
            let seen = try await node.identified(identity.peerID)
            #expect(seen.protocols == ["/one", "/two"])
            #expect(seen.addresses.map(\.description) == ["/ip4/10.0.0.7/tcp/5001"])
            // A push later replaces it.
            var push = IdentifyMessage(protocols: ["/three"])
            push.agentVersion = "go"
            let id = try await go.openLazily(
                IdentifyMessage.pushProtocolID, DelimitedMessage.encode(push.encoded))
            go.session.finish(id)
            try await go.sendSession()
            #expect(try await node.identified(identity.peerID).protocols == ["/three"])
            await go.close()
        }
    }

    /// Starting Go nodes hang up after message 2, again and again: neither logged as a warning nor held against the source.
    @Test func hangingUpAfterMessage2IsOrdinary() async throws {
        let messages = NIOLockedValueBox<[Logger.Level]>([])
        let logger = Logger(label: "test") { _ in
            RecordingLogHandler { level in messages.withLockedValue { $0.append(level) } }
        }
        let node = try TestHost(logger: logger)
        try await withHosts(node) {
            for _ in 0..<50 {
                let go = try await ScriptedPeer.connect(to: node.host)
                try await go.upgradeLikeGo(upToMessage2: true)
                try await go.hangUp()
            }
            try await eventually { node.host.statistics.unsecuredConnections == 0 }
            let identity = NodeIdentity()
            let go = try await ScriptedPeer.connect(to: node.host)
            try await go.upgradeLikeGo(identity: identity, expecting: node.id)
            try await eventually { node.host.isConnected(to: identity.peerID) }
            await go.close()
            try await eventually { node.host.statistics.connections == 0 }
        }
        #expect(messages.withLockedValue { $0.allSatisfy { $0 <= .info } })
    }

    @Test func pingOfTheMultiplexerIsAnswered() async throws {
        try await connected { go in
            for number in 1...100 as ClosedRange<UInt32> {
                go.session.ping(number)
                try await go.sendSession()
                while let event = try await go.nextEvent() {
                    if event == .pong(number) { break }
                }
            }
        }
    }

    @Test func pingProtocolEchoes() async throws {
        try await connected { go in
            let payload = (0..<96).map { UInt8($0) }
            let id = try await go.openLazily(PingResponder.protocolID, payload)
            go.session.finish(id)
            try await go.sendSession()
            let (bytes, _) = try await go.collect(id)
            #expect(bytes == ScriptedPeer.acceptance(PingResponder.protocolID) + payload)
        }
    }

    /// Without an extension in the handshake the muxer is negotiated in the channel, by a peer that dials like Go.
    @Test func aBatchThatTheServerRefusesIsReset() async throws {
        try await connected { go in
            let id = try await go.openLazily(TestHost.protocolID, delimited("A1") + delimited("R") + delimited("A2"))
            let (_, wasReset) = try await go.collect(id)
            #expect(wasReset)
            #expect(node.silentCount == 1)
        }
    }

    /// An idle stream is reset, not merely ended, or Go would go on writing into it.
    @Test func idleStreamsAreReset() async throws {
        let node = try TestHost { $0.limits.messageStreamIdleTimeout = .milliseconds(100) }
        try await withHosts(node) {
            let go = try await ScriptedPeer.connect(to: node.host)
            try await go.upgradeLikeGo()
            let id = try await go.openLazily(TestHost.protocolID, delimited("x"))
            let (bytes, wasReset) = try await go.collect(id)
            #expect(wasReset)
            #expect(bytes == ScriptedPeer.acceptance(TestHost.protocolID) + delimited("x"))
            await go.close()
        }
    }
}

/// Reports the level of each message.
private struct RecordingLogHandler: LogHandler {
    let record: @Sendable (Logger.Level) -> Void
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    init(record: @escaping @Sendable (Logger.Level) -> Void) {
        self.record = record
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { record(event.level) }
}
