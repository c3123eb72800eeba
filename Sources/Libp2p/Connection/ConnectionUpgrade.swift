import NIOCore

/// Makes a raw connection into an authenticated, encrypted, multiplexed one: negotiates `/noise`, runs its handshake,
/// agrees on yamux. Received bytes in, bytes to send out, in fragments of any size.
struct ConnectionUpgrade: Sendable {
    static let noise = "/noise"
    static let yamux = "/yamux/1.0.0"

    /// The result of a finished upgrade.
    struct Result: Sendable {
        let peer: PeerID
        var transport: NoiseTransport
        /// Decrypted bytes that already belong to the multiplexer.
        var plaintext: ByteBuffer
        /// True when the muxer was agreed inside the handshake.
        let earlyMuxer: Bool
    }

    private enum Phase {
        case proposingSecurity(MultistreamInitiator)
        case answeringSecurity(MultistreamResponder)
        case handshake(NoiseHandshake)
        case proposingMuxer(MultistreamInitiator)
        case answeringMuxer(MultistreamResponder)
    }

    private let role: NoiseHandshake.Role
    private var phase: Phase
    private var handshake: NoiseHandshake
    private var peer: PeerID?
    private var transport: NoiseTransport?
    private var plaintext = ByteBuffer()

    /// - Parameters:
    ///   - expectedPeer: The peer that must answer; nil to accept any.
    ///   - earlyMuxer: Whether to offer muxers inside the handshake; false only in tests of the other way.
    init(
        role: NoiseHandshake.Role, identity: NodeIdentity, expectedPeer: PeerID?, earlyMuxer: Bool = true
    ) throws {
        self.role = role
        handshake = try NoiseHandshake(
            role: role, identity: identity, expectedPeer: expectedPeer, muxers: earlyMuxer ? [Self.yamux] : nil)
        phase =
            role == .initiator
            ? .proposingSecurity(MultistreamInitiator([Self.noise])) : .answeringSecurity(MultistreamResponder())
    }

    /// What is sent before anything has been received.
    func start(into output: inout ByteBuffer) {
        switch phase {
        case .proposingSecurity(let initiator): initiator.start(into: &output)
        case .answeringSecurity(let responder): responder.start(into: &output)
        default: break
        }
    }

    /// Takes bytes from the input until more are needed or the upgrade is done, when the rest of the input is
    /// encrypted traffic of the multiplexer.
    mutating func receive(_ input: inout ByteBuffer, output: inout ByteBuffer) throws -> Result? {
        while true {
            switch phase {
            case .proposingSecurity(var initiator):
                let outcome = try initiator.receive(&input, output: &output)
                phase = .proposingSecurity(initiator)
                switch outcome {
                case .needsMore: return nil
                case .refused: throw WireFormatError("the peer does not support \(Self.noise)")
                case .agreed:
                    try handshake.start(into: &output)
                    phase = .handshake(handshake)
                }
            case .answeringSecurity(var responder):
                let agreed = try responder.receive(&input, output: &output) { $0 == Self.noise }
                phase = .answeringSecurity(responder)
                guard agreed != nil else { return nil }
                phase = .handshake(handshake)
            case .handshake(var handshake):
                let before = input.readableBytes
                let result = try handshake.receive(&input, output: &output)
                phase = .handshake(handshake)
                guard let result else {
                    if input.readableBytes == before { return nil }
                    continue
                }
                peer = result.peer
                transport = NoiseTransport(sending: result.sending, receiving: result.receiving)
                if result.muxer == Self.yamux { return finished(earlyMuxer: true) }
                try startMuxer(into: &output)
            case .proposingMuxer(var initiator):
                var answer = ByteBuffer()
                let outcome = try initiator.receive(&plaintext, output: &answer)
                phase = .proposingMuxer(initiator)
                switch outcome {
                case .agreed: return finished(earlyMuxer: false)
                case .refused: throw WireFormatError("the peer does not support \(Self.yamux)")
                case .needsMore: guard try decrypt(&input) else { return nil }
                }
            case .answeringMuxer(var responder):
                var answer = ByteBuffer()
                let agreed = try responder.receive(&plaintext, output: &answer) { $0 == Self.yamux }
                phase = .answeringMuxer(responder)
                try transport?.encrypt(&answer, into: &output)
                if agreed != nil { return finished(earlyMuxer: false) }
                guard try decrypt(&input) else { return nil }
            }
        }
    }

    private mutating func startMuxer(into output: inout ByteBuffer) throws {
        var greeting = ByteBuffer()
        if role == .initiator {
            let initiator = MultistreamInitiator([Self.yamux])
            initiator.start(into: &greeting)
            phase = .proposingMuxer(initiator)
        } else {
            let responder = MultistreamResponder()
            responder.start(into: &greeting)
            phase = .answeringMuxer(responder)
        }
        try transport?.encrypt(&greeting, into: &output)
    }

    private mutating func decrypt(_ input: inout ByteBuffer) throws(NoiseError) -> Bool {
        guard var transport else { return false }
        defer { self.transport = transport }
        return try transport.decryptNext(from: &input, into: &plaintext)
    }

    private func finished(earlyMuxer: Bool) -> Result? {
        guard let peer, let transport else { return nil }
        return Result(peer: peer, transport: transport, plaintext: plaintext, earlyMuxer: earlyMuxer)
    }
}
