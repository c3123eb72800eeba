import Crypto
import NIOCore
import PeerTestKit
import Testing

@testable import Libp2p

@Suite struct NoiseTests {
    /// The two handshakes of the vectors, with their keys and payloads.
    private func handshakes(
        expected: PeerID? = nil
    ) throws -> (vectors: Vectors, initiator: NoiseHandshake, responder: NoiseHandshake) {
        let vectors = try Vectors.load()
        func make(_ role: NoiseHandshake.Role, _ name: String, expecting: PeerID?) throws -> NoiseHandshake {
            func bytes(_ key: String) throws -> [UInt8] { hex(try #require(vectors.noise["\(name)_\(key)"])) }
            let identity = try NodeIdentity(
                seed: hex(vectors.identity(try #require(vectors.noise["\(name)_identity"])).seed))
            return try NoiseHandshake(
                role: role, identity: identity, expectedPeer: expecting, muxers: [ConnectionUpgrade.yamux],
                staticKey: .init(rawRepresentation: bytes("static")),
                ephemeralKey: .init(rawRepresentation: bytes("ephemeral")),
                payload: hex(try #require(vectors.noise["payload_\(name)"])))
        }
        return (
            vectors, try make(.initiator, "initiator", expecting: expected),
            try make(.responder, "responder", expecting: nil)
        )
    }

    @Test(arguments: [1, 3, 100_000]) func fullTranscript(_ fragment: Int) throws {
        var (vectors, initiator, responder) = try handshakes()
        func vector(_ name: String) throws -> [UInt8] { hex(try #require(vectors.noise[name])) }
        func feed(
            _ handshake: inout NoiseHandshake, _ bytes: [UInt8], _ output: inout ByteBuffer
        ) throws -> NoiseHandshake.Result? {
            var input = ByteBuffer()
            var result: NoiseHandshake.Result?
            for start in stride(from: 0, to: bytes.count, by: fragment) {
                input.writeBytes(bytes[start..<min(start + fragment, bytes.count)])
                if let done = try handshake.receive(&input, output: &output) { result = done }
            }
            #expect(input.readableBytes == 0)
            return result
        }
        var fromInitiator = ByteBuffer()
        try initiator.start(into: &fromInitiator)
        #expect(Array(fromInitiator.readableBytesView) == (try vector("message1")))

        var fromResponder = ByteBuffer()
        #expect(try feed(&responder, vector("message1"), &fromResponder) == nil)
        #expect(Array(fromResponder.readableBytesView) == (try vector("message2")))

        fromInitiator.clear()
        let first = try #require(try feed(&initiator, vector("message2"), &fromInitiator))
        #expect(Array(fromInitiator.readableBytesView) == (try vector("message3")))
        var nothing = ByteBuffer()
        let second = try #require(try feed(&responder, vector("message3"), &nothing))
        #expect(nothing.readableBytes == 0)

        #expect(first.peer.description == (try vectors.identity("22").base58))
        #expect(second.peer.description == (try vectors.identity("11").base58))
        for result in [first, second] {
            #expect(result.muxer == ConnectionUpgrade.yamux)
            #expect(result.handshakeHash == (try vector("handshake_hash")))
        }
        func raw(_ cipher: NoiseCipher) -> [UInt8] { cipher.key.withUnsafeBytes { Array($0) } }
        #expect(raw(first.sending) == (try vector("key_initiator_to_responder")))
        #expect(raw(first.receiving) == (try vector("key_responder_to_initiator")))
        #expect(raw(second.sending) == (try vector("key_responder_to_initiator")))
        #expect(raw(second.receiving) == (try vector("key_initiator_to_responder")))

        var initiatorTransport = NoiseTransport(sending: first.sending, receiving: first.receiving)
        var responderTransport = NoiseTransport(sending: second.sending, receiving: second.receiving)
        var plain = ByteBuffer(string: "hello from initiator")
        var wire = ByteBuffer()
        try initiatorTransport.encrypt(&plain, into: &wire)
        #expect(Array(wire.readableBytesView) == (try vector("transport1_initiator")))
        var received = ByteBuffer()
        #expect(try value { try responderTransport.decryptNext(from: &wire, into: &received) })
        #expect(String(buffer: received) == "hello from initiator")
        var answer = ByteBuffer(string: "hello from responder")
        var back = ByteBuffer()
        try responderTransport.encrypt(&answer, into: &back)
        #expect(Array(back.readableBytesView) == (try vector("transport1_responder")))
    }

    @Test func payloads() throws {
        let vectors = try Vectors.load()
        for name in ["payload_initiator", "payload_responder"] {
            let bytes = hex(try #require(vectors.noise[name]))
            let payload = try NoisePayload(parsing: bytes)
            #expect(payload.encoded == bytes)
            #expect(payload.muxers == [ConnectionUpgrade.yamux])
        }
        var long = ProtobufWriter()
        long.message(4) { extensions in for _ in 0...100 { extensions.string(2, "/yamux/1.0.0") } }
        #expect(try NoisePayload(parsing: long.bytes).muxers == nil)
        var unknown = ProtobufWriter()
        unknown.bytes(1, [1])
        unknown.message(4) { extensions in
            extensions.bytes(1, [2])
            extensions.bytes(3, [3])
        }
        unknown.varint(77, 1)
        #expect(try NoisePayload(parsing: unknown.bytes).muxers == nil)
        #expect(throws: WireFormatError.self) { try NoisePayload(parsing: [0x0a, 0x05, 1]) }
    }

    @Test func wrongPeerIsNamed() throws {
        let vectors = try Vectors.load()
        let other = try PeerID(parsing: vectors.identity("33").base58)
        var (_, initiator, responder) = try handshakes(expected: other)
        var wire = ByteBuffer()
        var output = ByteBuffer()
        try initiator.start(into: &wire)
        _ = try responder.receive(&wire, output: &output)
        let found = try PeerID(parsing: vectors.identity("22").base58)
        var sent = ByteBuffer()
        #expect(throws: NoiseError.peerMismatch(expected: other, found: found)) {
            try initiator.receive(&output, output: &sent)
        }
        #expect(sent.readableBytes == 0)
    }

    /// A peer that has another's identity key and signature, but not the static key they belong to.
    @Test func signatureOfAnotherHandshakeIsRefused() throws {
        var (vectors, initiator, _) = try handshakes()
        let impostor = try NodeIdentity(seed: hex(vectors.identity("22").seed))
        var responder = try NoiseHandshake(
            role: .responder, identity: impostor, expectedPeer: nil, muxers: nil,
            payload: hex(try #require(vectors.noise["payload_responder"])))
        var wire = ByteBuffer()
        var output = ByteBuffer()
        try initiator.start(into: &wire)
        _ = try responder.receive(&wire, output: &output)
        var sent = ByteBuffer()
        #expect(throws: NoiseError.invalidSignature) { try initiator.receive(&output, output: &sent) }
        #expect(sent.readableBytes == 0)
    }

    @Test func everyFlippedBitEndsTheHandshake() throws {
        let (_, initiator, responder) = try handshakes()
        var wire = ByteBuffer()
        var started = initiator
        try started.start(into: &wire)
        var message2 = ByteBuffer()
        var answered = responder
        _ = try answered.receive(&wire, output: &message2)
        let bytes = Array(message2.readableBytesView)
        for index in stride(from: 2, to: bytes.count, by: 5) {
            var damaged = bytes
            damaged[index] ^= 1
            var input = ByteBuffer(bytes: damaged)
            var copy = started
            var output = ByteBuffer()
            #expect(throws: NoiseError.self) { try copy.receive(&input, output: &output) }
        }
    }

    @Test func keysOfSmallOrderAndLongMessagesAreRefused() throws {
        let (_, _, responder) = try handshakes()
        var copy = responder
        var output = ByteBuffer()
        var zero = ByteBuffer(bytes: [0, 32] + [UInt8](repeating: 0, count: 32))
        #expect(throws: NoiseError.self) { try copy.receive(&zero, output: &output) }
        copy = responder
        var long = ByteBuffer(bytes: [0x10, 0x01])
        #expect(throws: NoiseError.self) { try copy.receive(&long, output: &output) }
        copy = responder
        var short = ByteBuffer(bytes: [0, 31] + [UInt8](repeating: 1, count: 31))
        #expect(throws: NoiseError.self) { try copy.receive(&short, output: &output) }
        #expect(output.readableBytes == 0)
    }

    @Test func largePlaintextIsSplitAndArrivesInFragments() throws {
        let key = SymmetricKey(size: .bits256)
        var sender = NoiseTransport(sending: NoiseCipher(key: key), receiving: NoiseCipher(key: key))
        var receiver = NoiseTransport(sending: NoiseCipher(key: key), receiving: NoiseCipher(key: key))
        let bytes = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        var plain = ByteBuffer(bytes: bytes)
        var wire = ByteBuffer()
        try sender.encrypt(&plain, into: &wire)
        #expect(wire.readableBytes == bytes.count + 4 * 18)
        var input = ByteBuffer()
        var got = ByteBuffer()
        while var fragment = wire.readSlice(length: min(1111, wire.readableBytes)), fragment.readableBytes > 0 {
            input.writeBuffer(&fragment)
            while try receiver.decryptNext(from: &input, into: &got) {}
        }
        #expect(Array(got.readableBytesView) == bytes)
        var empty = ByteBuffer(bytes: [0, 15] + [UInt8](repeating: 0, count: 15))
        #expect(throws: NoiseError.self) { try receiver.decryptNext(from: &empty, into: &got) }
        var last = NoiseCipher(key: key, counter: .max)
        #expect(throws: NoiseError.exhausted) { try last.encrypt(ByteBufferView([1]), into: &wire) }
    }

    @Test func mutatedMessagesNeverCrash() throws {
        var random = SplitMix64(seed: 11)
        let (vectors, _, responder) = try handshakes()
        let message1 = hex(try #require(vectors.noise["message1"]))
        let payload = hex(try #require(vectors.noise["payload_initiator"]))
        for _ in 0..<2000 {
            var copy = responder
            var input = ByteBuffer(bytes: random.mutate(message1))
            var output = ByteBuffer()
            _ = try? copy.receive(&input, output: &output)
            _ = try? NoisePayload(parsing: random.mutate(payload))
        }
    }
}
