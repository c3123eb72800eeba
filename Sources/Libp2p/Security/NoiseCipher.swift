import Crypto
import NIOCore

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// ChaCha20-Poly1305 with a counter for nonce: one direction of a connection.
struct NoiseCipher: Sendable {
    static let tagLength = 16

    let key: SymmetricKey
    private var counter: UInt64 = 0

    init(key: SymmetricKey, counter: UInt64 = 0) {
        self.key = key
        self.counter = counter
    }

    /// Appends ciphertext and tag.
    mutating func encrypt(
        _ plaintext: ByteBufferView, authenticating data: [UInt8] = [], into output: inout ByteBuffer
    ) throws(NoiseError) {
        let nonce = try nextNonce()
        let sealed = plaintext.withUnsafeBytes { bytes in
            try? ChaChaPoly.seal(bytes, using: key, nonce: nonce, authenticating: data)
        }
        guard let box = sealed else { throw .malformed("cannot encrypt \(plaintext.count) bytes") }
        // combined = nonce, ciphertext, tag; the nonce is not sent.
        output.writeBytes(box.combined.dropFirst(12))
    }

    /// The plaintext of ciphertext and tag.
    mutating func decrypt(_ message: ByteBufferView, authenticating data: [UInt8] = []) throws(NoiseError) -> Data {
        guard message.count >= Self.tagLength else { throw .malformed("\(message.count) bytes where a tag needs 16") }
        let nonce = try nextNonce()
        var combined = Data(capacity: 12 + message.count)
        combined.append(contentsOf: nonce)
        message.withUnsafeBytes { combined.append(contentsOf: $0) }
        guard let box = try? ChaChaPoly.SealedBox(combined: combined),
            let plaintext = try? ChaChaPoly.open(box, using: key, authenticating: data)
        else { throw .decryptionFailed }
        return plaintext
    }

    /// Four zero bytes, then the counter, lowest byte first.
    private mutating func nextNonce() throws(NoiseError) -> ChaChaPoly.Nonce {
        // The last value is reserved by the Noise specification.
        guard counter < .max else { throw .exhausted }
        var bytes = [UInt8](repeating: 0, count: 12)
        for index in 0..<8 { bytes[4 + index] = UInt8(truncatingIfNeeded: counter >> UInt64(8 * index)) }
        counter += 1
        guard let nonce = try? ChaChaPoly.Nonce(data: bytes) else { throw .exhausted }
        return nonce
    }
}

/// The chaining key, handshake hash and cipher that a Noise handshake carries along (Noise specification §5.2).
struct NoiseSymmetricState: Sendable {
    /// Exactly 32 bytes, so it is the initial hash unhashed.
    private static let protocolName = "Noise_XX_25519_ChaChaPoly_SHA256"

    private(set) var hash: [UInt8]
    private var chainingKey: [UInt8]
    private var cipher: NoiseCipher?

    init() {
        hash = Array(Self.protocolName.utf8)
        chainingKey = hash
        mixHash([])
    }

    mutating func mixHash(_ data: some Sequence<UInt8>) {
        hash = Array(SHA256.hash(data: hash + data))
    }

    /// Mixes in the result of a key agreement; all-zero results (from keys of small order) are refused.
    mutating func mixKey(
        _ ours: Curve25519.KeyAgreement.PrivateKey, _ theirs: Curve25519.KeyAgreement.PublicKey
    ) throws(NoiseError) {
        guard let secret = try? ours.sharedSecretFromKeyAgreement(with: theirs) else {
            throw .malformed("public key of small order")
        }
        let bytes = secret.withUnsafeBytes { Array($0) }
        guard bytes.contains(where: { $0 != 0 }) else { throw .malformed("public key of small order") }
        let (first, second) = derive(bytes)
        chainingKey = first
        cipher = NoiseCipher(key: SymmetricKey(data: second))
    }

    /// Appends the payload, encrypted once there is a key, and hashes what was sent.
    mutating func encryptAndHash(_ plaintext: [UInt8], into output: inout ByteBuffer) throws(NoiseError) {
        let start = output.writerIndex
        if cipher == nil {
            output.writeBytes(plaintext)
        } else {
            try cipher?.encrypt(ByteBuffer(bytes: plaintext).readableBytesView, authenticating: hash, into: &output)
        }
        mixHash(output.viewBytes(at: start, length: output.writerIndex - start) ?? ByteBufferView())
    }

    mutating func decryptAndHash(_ message: ByteBufferView) throws(NoiseError) -> [UInt8] {
        let plaintext: [UInt8]
        if cipher == nil {
            plaintext = Array(message)
        } else {
            guard let data = try cipher?.decrypt(message, authenticating: hash) else { throw .decryptionFailed }
            plaintext = Array(data)
        }
        mixHash(message)
        return plaintext
    }

    /// The two transport keys: from the initiator, and from the responder.
    func split() -> (initiator: NoiseCipher, responder: NoiseCipher) {
        let (first, second) = derive([])
        return (NoiseCipher(key: SymmetricKey(data: first)), NoiseCipher(key: SymmetricKey(data: second)))
    }

    private func derive(_ input: [UInt8]) -> ([UInt8], [UInt8]) {
        let key = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: SymmetricKey(data: input), salt: chainingKey, outputByteCount: 64)
        let bytes = key.withUnsafeBytes { Array($0) }
        return (Array(bytes.prefix(32)), Array(bytes.suffix(32)))
    }
}

/// The encrypted channel after the handshake: plaintext in, length-prefixed Noise messages out, and back.
struct NoiseTransport: Sendable {
    /// Most plaintext in one message, in bytes.
    static let maximumPlaintext = 65535 - NoiseCipher.tagLength

    private var sending: NoiseCipher
    private var receiving: NoiseCipher

    init(sending: NoiseCipher, receiving: NoiseCipher) {
        self.sending = sending
        self.receiving = receiving
    }

    /// Appends the plaintext, in as many messages as it takes.
    mutating func encrypt(_ plaintext: inout ByteBuffer, into output: inout ByteBuffer) throws(NoiseError) {
        let frames = (plaintext.readableBytes + Self.maximumPlaintext - 1) / Self.maximumPlaintext
        output.reserveCapacity(
            minimumWritableBytes: plaintext.readableBytes + frames * (2 + NoiseCipher.tagLength))
        while plaintext.readableBytes > 0 {
            let length = min(plaintext.readableBytes, Self.maximumPlaintext)
            guard let chunk = plaintext.readSlice(length: length) else { return }
            output.writeInteger(UInt16(truncatingIfNeeded: length + NoiseCipher.tagLength))
            try sending.encrypt(chunk.readableBytesView, into: &output)
        }
    }

    /// Decrypts the next message and appends what it holds, maybe nothing.
    ///
    /// - Returns: false, and nothing taken, when the message is not complete.
    mutating func decryptNext(
        from input: inout ByteBuffer, into plaintext: inout ByteBuffer
    ) throws(NoiseError) -> Bool {
        guard let length = input.getInteger(at: input.readerIndex, as: UInt16.self) else { return false }
        guard length >= NoiseCipher.tagLength else { throw .malformed("frame of \(length) bytes") }
        guard input.readableBytes >= 2 + Int(length) else { return false }
        input.moveReaderIndex(forwardBy: 2)
        guard let message = input.readSlice(length: Int(length)) else { return false }
        let data = try receiving.decrypt(message.readableBytesView)
        plaintext.writeBytes(data)
        return true
    }
}
