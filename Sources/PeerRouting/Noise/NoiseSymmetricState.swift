import Crypto
import NIOCore

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

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
