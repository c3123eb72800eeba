import Crypto
import NIOCore

/// The Noise XX handshake of libp2p, fed with received bytes and filling an output buffer.
struct NoiseHandshake: Sendable {
    /// The connection's dialler is the initiator.
    enum Role: Sendable {
        case initiator
        case responder
    }

    /// What a finished handshake leaves.
    struct Result: Sendable {
        let peer: PeerID
        let sending: NoiseCipher
        let receiving: NoiseCipher
        /// The muxer both payloads list; nil: negotiate one.
        let muxer: String?
        let handshakeHash: [UInt8]
    }

    /// Longest handshake message accepted, in bytes. With Ed25519 keys they have some 200, with RSA under 2 KiB.
    static let maximumMessageLength = 4096

    private enum Step {
        case message1, message2, message3, done
    }

    private let role: Role
    private let expectedPeer: PeerID?
    private let staticKey: Curve25519.KeyAgreement.PrivateKey
    private let ephemeralKey: Curve25519.KeyAgreement.PrivateKey
    private let payload: [UInt8]
    private let muxers: [String]?
    private var state = NoiseSymmetricState()
    private var step = Step.message1
    private var remoteEphemeral: Curve25519.KeyAgreement.PublicKey?

    /// - Parameters:
    ///   - expectedPeer: The peer that must answer; nil to accept any.
    ///   - muxers: Offered in the payload; nil to send no list.
    ///   - staticKey: A new one for each handshake; given only in tests, as are the next two.
    init(
        role: Role, identity: NodeIdentity, expectedPeer: PeerID?, muxers: [String]?,
        staticKey: Curve25519.KeyAgreement.PrivateKey = .init(),
        ephemeralKey: Curve25519.KeyAgreement.PrivateKey = .init(),
        payload: [UInt8]? = nil
    ) throws {
        self.role = role
        self.expectedPeer = expectedPeer
        self.staticKey = staticKey
        self.ephemeralKey = ephemeralKey
        self.muxers = muxers
        let staticPublic = Array(staticKey.publicKey.rawRepresentation)
        self.payload =
            try payload ?? NoisePayload(identity: identity, staticKey: staticPublic, muxers: muxers).encoded
    }

    /// The initiator's first message; nothing for the responder.
    mutating func start(into output: inout ByteBuffer) throws(NoiseError) {
        guard role == .initiator, step == .message1 else { return }
        try writeFrame(into: &output) { (handshake: inout Self, frame: inout ByteBuffer) throws(NoiseError) in
            handshake.writeEphemeral(into: &frame)
            try handshake.state.encryptAndHash([], into: &frame)
        }
        step = .message2
    }

    /// Takes at most the handshake's messages from the input. All bytes left when it returns a result are transport
    /// messages. Any error means: close, and send nothing.
    mutating func receive(_ input: inout ByteBuffer, output: inout ByteBuffer) throws(NoiseError) -> Result? {
        guard let length = input.getInteger(at: input.readerIndex, as: UInt16.self) else { return nil }
        guard length <= Self.maximumMessageLength else {
            throw .malformed("handshake message of \(length) bytes")
        }
        guard input.readableBytes >= 2 + Int(length) else { return nil }
        input.moveReaderIndex(forwardBy: 2)
        guard var message = input.readSlice(length: Int(length)) else { return nil }
        switch (role, step) {
        case (.responder, .message1):
            try readEphemeral(&message)
            _ = try state.decryptAndHash(message.readableBytesView)
            try writeMessage2(into: &output)
            step = .message3
            return nil
        case (.initiator, .message2):
            return try finishAsInitiator(&message, output: &output)
        case (.responder, .message3):
            return try finishAsResponder(&message)
        default:
            throw .malformed("handshake message out of order")
        }
    }

    private mutating func writeMessage2(into output: inout ByteBuffer) throws(NoiseError) {
        guard let theirEphemeral = remoteEphemeral else { throw .malformed("no ephemeral key") }
        try writeFrame(into: &output) { (handshake: inout Self, frame: inout ByteBuffer) throws(NoiseError) in
            handshake.writeEphemeral(into: &frame)
            try handshake.state.mixKey(handshake.ephemeralKey, theirEphemeral)
            try handshake.writeStatic(into: &frame)
            try handshake.state.mixKey(handshake.staticKey, theirEphemeral)
            try handshake.state.encryptAndHash(handshake.payload, into: &frame)
        }
    }

    private mutating func finishAsInitiator(
        _ message: inout ByteBuffer, output: inout ByteBuffer
    ) throws(NoiseError) -> Result {
        try readEphemeral(&message)
        guard let theirEphemeral = remoteEphemeral else { throw .malformed("no ephemeral key") }
        try state.mixKey(ephemeralKey, theirEphemeral)
        let theirStatic = try readStatic(&message)
        try state.mixKey(ephemeralKey, theirStatic)
        let (peer, theirMuxers) = try verify(
            try state.decryptAndHash(message.readableBytesView), staticKey: theirStatic)
        try writeFrame(into: &output) { (handshake: inout Self, frame: inout ByteBuffer) throws(NoiseError) in
            try handshake.writeStatic(into: &frame)
            try handshake.state.mixKey(handshake.staticKey, theirEphemeral)
            try handshake.state.encryptAndHash(handshake.payload, into: &frame)
        }
        step = .done
        let ciphers = state.split()
        return Result(
            peer: peer, sending: ciphers.initiator, receiving: ciphers.responder,
            muxer: Self.choose(initiator: muxers, responder: theirMuxers), handshakeHash: state.hash)
    }

    private mutating func finishAsResponder(_ message: inout ByteBuffer) throws(NoiseError) -> Result {
        let theirStatic = try readStatic(&message)
        try state.mixKey(ephemeralKey, theirStatic)
        let (peer, theirMuxers) = try verify(
            try state.decryptAndHash(message.readableBytesView), staticKey: theirStatic)
        step = .done
        let ciphers = state.split()
        return Result(
            peer: peer, sending: ciphers.responder, receiving: ciphers.initiator,
            muxer: Self.choose(initiator: theirMuxers, responder: muxers), handshakeHash: state.hash)
    }

    /// The initiator's first entry that the responder lists too.
    private static func choose(initiator: [String]?, responder: [String]?) -> String? {
        guard let initiator, let responder else { return nil }
        return initiator.first { responder.contains($0) }
    }

    private func verify(
        _ payload: [UInt8], staticKey: Curve25519.KeyAgreement.PublicKey
    ) throws(NoiseError) -> (PeerID, [String]?) {
        let parsed: NoisePayload
        let key: PublicKey
        do throws(WireFormatError) {
            parsed = try NoisePayload(parsing: payload)
            key = try PublicKey(parsing: parsed.identityKey[...])
        } catch {
            throw .malformed(error.message)
        }
        let peer = PeerID(publicKey: key)
        if let expectedPeer, expectedPeer != peer { throw .peerMismatch(expected: expectedPeer, found: peer) }
        let signed = NoisePayload.signedMessage(staticKey.rawRepresentation)
        guard key.verifies(signature: parsed.signature[...], of: signed) else { throw .invalidSignature }
        return (peer, parsed.muxers)
    }

    private mutating func writeEphemeral(into frame: inout ByteBuffer) {
        let bytes = Array(ephemeralKey.publicKey.rawRepresentation)
        frame.writeBytes(bytes)
        state.mixHash(bytes)
    }

    private mutating func writeStatic(into frame: inout ByteBuffer) throws(NoiseError) {
        try state.encryptAndHash(Array(staticKey.publicKey.rawRepresentation), into: &frame)
    }

    private mutating func readEphemeral(_ message: inout ByteBuffer) throws(NoiseError) {
        guard let bytes = message.readBytes(length: 32),
            let key = try? Curve25519.KeyAgreement.PublicKey(rawRepresentation: bytes)
        else { throw .malformed("no ephemeral key") }
        remoteEphemeral = key
        state.mixHash(bytes)
    }

    private mutating func readStatic(
        _ message: inout ByteBuffer
    ) throws(NoiseError) -> Curve25519.KeyAgreement.PublicKey {
        guard let encrypted = message.readSlice(length: 48) else { throw .malformed("no static key") }
        let bytes = try state.decryptAndHash(encrypted.readableBytesView)
        guard let key = try? Curve25519.KeyAgreement.PublicKey(rawRepresentation: bytes) else {
            throw .malformed("no static key")
        }
        return key
    }

    private mutating func writeFrame(
        into output: inout ByteBuffer, _ body: (inout Self, inout ByteBuffer) throws(NoiseError) -> Void
    ) throws(NoiseError) {
        var frame = ByteBuffer()
        try body(&self, &frame)
        output.writeInteger(UInt16(truncatingIfNeeded: frame.readableBytes))
        output.writeBuffer(&frame)
    }
}

/// What libp2p puts into Noise messages 2 and 3: the sender's identity key, and the muxers it offers.
/// See https://github.com/libp2p/specs/tree/master/noise
struct NoisePayload: Equatable, Sendable {
    static let signaturePrefix = "noise-libp2p-static-key:"
    /// Lists of muxers longer than this count as none.
    static let maximumMuxers = 100

    var identityKey: [UInt8]
    var signature: [UInt8]
    /// Nil when no list was sent; then the muxer is negotiated inside the channel.
    var muxers: [String]?

    init(identityKey: [UInt8], signature: [UInt8], muxers: [String]?) {
        self.identityKey = identityKey
        self.signature = signature
        self.muxers = muxers
    }

    /// A payload that binds an identity to the static key of one handshake.
    init(identity: NodeIdentity, staticKey: [UInt8], muxers: [String]?) throws {
        identityKey = identity.publicKey.encoded
        signature = try identity.sign(Self.signedMessage(staticKey))
        self.muxers = muxers
    }

    static func signedMessage(_ staticKey: some Sequence<UInt8>) -> [UInt8] {
        Array(signaturePrefix.utf8) + staticKey
    }

    init(parsing bytes: [UInt8]) throws(WireFormatError) {
        var reader = ProtobufReader(bytes)
        identityKey = []
        signature = []
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (1, .bytes(let value)): identityKey = Array(value)
            case (2, .bytes(let value)): signature = Array(value)
            case (4, .bytes(let value)):
                var extensions = try reader.nested(value)
                while let field = try extensions.next() {
                    guard field.number == 2, case .bytes(let name) = field.value else { continue }
                    muxers = (muxers ?? []) + [try ProtobufReader.string(name)]
                }
            default: break
            }
        }
        if let muxers, muxers.count > Self.maximumMuxers { self.muxers = nil }
    }

    var encoded: [UInt8] {
        var writer = ProtobufWriter(reservingCapacity: 128)
        writer.bytes(1, identityKey)
        writer.bytes(2, signature)
        if let muxers {
            writer.message(4) { extensions in
                for name in muxers { extensions.string(2, name) }
            }
        }
        return writer.bytes
    }
}

/// Why a handshake, or the encrypted connection after it, failed.
enum NoiseError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A frame or payload that does not follow the protocol.
    case malformed(String)
    /// A message that was not encrypted with the key agreed.
    case decryptionFailed
    /// The key in the payload did not sign this handshake's static key.
    case invalidSignature
    /// Another peer than the expected one.
    case peerMismatch(expected: PeerID, found: PeerID)
    /// The counter of messages is used up.
    case exhausted

    var description: String {
        switch self {
        case .malformed(let reason): "malformed Noise message: \(reason)"
        case .decryptionFailed: "Noise message does not decrypt"
        case .invalidSignature: "identity key did not sign the Noise key"
        case .peerMismatch(let expected, let found): "peer \(expected) expected, \(found) found"
        case .exhausted: "Noise message counter used up"
        }
    }
}
