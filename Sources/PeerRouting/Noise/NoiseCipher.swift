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
