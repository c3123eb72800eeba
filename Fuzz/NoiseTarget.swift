import Crypto
import NIOCore

@testable import Libp2p

/// The handshake as either side, what it carries, and the frames after it. The first byte says which.
func fuzzNoise(_ input: UnsafeBufferPointer<UInt8>) {
    guard let first = input.first else { return }
    let rest = Array(input.dropFirst())
    switch first % 4 {
    case 0: handshake(.responder, receiving: rest)
    case 1: handshake(.initiator, receiving: rest)
    case 2: payload(rest)
    default: transport(rest)
    }
}

private let identity = try? NodeIdentity(seed: [UInt8](repeating: 0x11, count: 32))
private let staticKey = try? Curve25519.KeyAgreement.PrivateKey(rawRepresentation: [UInt8](repeating: 0x21, count: 32))
private let ephemeralKey = try? Curve25519.KeyAgreement.PrivateKey(
    rawRepresentation: [UInt8](repeating: 0x31, count: 32))

private func make(_ role: NoiseHandshake.Role, payload: [UInt8]? = nil) -> NoiseHandshake {
    guard let identity, let staticKey, let ephemeralKey,
        let handshake = try? NoiseHandshake(
            role: role, identity: identity, expectedPeer: nil, muxers: ["/yamux/1.0.0"], staticKey: staticKey,
            ephemeralKey: ephemeralKey, payload: payload)
    else { fail("no handshake") }
    return handshake
}

/// Nobody without the keys gets through.
private func handshake(_ role: NoiseHandshake.Role, receiving bytes: [UInt8]) {
    var handshake = make(role)
    var output = ByteBuffer()
    try? handshake.start(into: &output)
    var buffer = ByteBuffer(bytes: bytes)
    while buffer.readableBytes > 0 {
        let before = buffer.readableBytes
        do {
            let result = try handshake.receive(&buffer, output: &output)
            require(result == nil, "a handshake succeeded by guessing")
        } catch {
            return
        }
        if buffer.readableBytes == before { break }
    }
    require(buffer.readableBytes < NoiseHandshake.maximumMessageLength + 2 || bytes.isEmpty, "waits for too much")
}

/// A peer that has its keys, and puts anything into the payload: only the signature of its static key is taken.
private func payload(_ bytes: [UInt8]) {
    guard bytes.count < 3000 else { return }
    var initiator = make(.initiator)
    var responder = make(.responder, payload: bytes)
    var toResponder = ByteBuffer()
    var toInitiator = ByteBuffer()
    do {
        try initiator.start(into: &toResponder)
        _ = try responder.receive(&toResponder, output: &toInitiator)
        guard let result = try initiator.receive(&toInitiator, output: &toResponder) else {
            fail("the initiator did not finish")
        }
        guard let staticKey, let parsed = try? NoisePayload(parsing: bytes) else { fail("a payload was not read") }
        let key = try PublicKey(parsing: parsed.identityKey[...])
        require(result.peer == PeerID(publicKey: key), "another peer than the key's")
        let signed = NoisePayload.signedMessage(staticKey.publicKey.rawRepresentation)
        require(key.verifies(signature: parsed.signature[...], of: signed), "an invalid signature was taken")
    } catch let error as NoiseError {
        require(!"\(error)".isEmpty, "no reason")
    } catch {
        fail("another error: \(error)")
    }
}

private func transport(_ bytes: [UInt8]) {
    let key = SymmetricKey(data: [UInt8](repeating: 7, count: 32))
    // What was encrypted arrives unchanged.
    var sender = NoiseTransport(sending: NoiseCipher(key: key), receiving: NoiseCipher(key: key))
    var receiver = sender
    var plaintext = ByteBuffer(bytes: bytes)
    var wire = ByteBuffer()
    var received = ByteBuffer()
    do {
        try sender.encrypt(&plaintext, into: &wire)
        while try receiver.decryptNext(from: &wire, into: &received) {}
    } catch {
        fail("\(error)")
    }
    require(Array(received.readableBytesView) == bytes, "the channel changes what it carries")
    // What was not is refused, or waited for.
    var garbage = ByteBuffer(bytes: bytes)
    var nothing = ByteBuffer()
    _ = try? receiver.decryptNext(from: &garbage, into: &nothing)
    require(nothing.readableBytes == 0, "invented bytes were decrypted")
}
