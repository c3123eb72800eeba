import NIOCore

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
