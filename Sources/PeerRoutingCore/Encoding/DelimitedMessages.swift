import NIOCore

/// Messages on a stream, each behind its length as a multiformats varint.
package enum DelimitedMessage {
    package static func append(_ message: some Collection<UInt8>, to buffer: inout ByteBuffer) {
        buffer.writeBytes(Varint.encode(UInt64(message.count)))
        buffer.writeBytes(message)
    }

    package static func encode(_ message: some Collection<UInt8>) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(message.count + 5)
        Varint.append(UInt64(message.count), to: &bytes)
        bytes.append(contentsOf: message)
        return bytes
    }
}

/// Takes messages from a stream that arrives in fragments.
///
/// A message's storage grows with the bytes that arrived, never to the length its sender claimed.
package struct DelimitedMessageDecoder: Sendable {
    /// Longest message accepted, in bytes.
    package let maximumLength: Int

    private var length = MultiformatsVarintDecoder()
    private var expected: Int?
    private var partial: [UInt8] = []

    package init(maximumLength: Int) {
        self.maximumLength = maximumLength
    }

    /// Bytes held of a message that is not complete.
    package var bufferedBytes: Int { partial.count }

    /// True between messages: the end of the stream here loses nothing.
    package var isBetweenMessages: Bool { expected == nil && length.isEmpty }

    /// The next message, or nil when more bytes are needed; what it takes is removed from `buffer`.
    package mutating func next(from buffer: inout ByteBuffer) throws(WireFormatError) -> [UInt8]? {
        while expected == nil {
            guard let byte = buffer.readInteger(as: UInt8.self) else { return nil }
            guard let value = try length.push(byte) else { continue }
            guard value <= UInt64(maximumLength) else {
                throw WireFormatError("message of \(value) bytes where at most \(maximumLength) are accepted")
            }
            expected = Int(value)
        }
        guard let expected else { return nil }
        let wanted = min(expected - partial.count, buffer.readableBytes)
        if let chunk = buffer.readBytes(length: wanted) {
            if partial.isEmpty { partial = chunk } else { partial.append(contentsOf: chunk) }
        }
        guard partial.count == expected else { return nil }
        defer {
            partial = []
            self.expected = nil
            length = MultiformatsVarintDecoder()
        }
        return partial
    }
}
