import NIOCore

/// One line of multistream-select: varint length, text, newline; the length counts the newline.
/// See https://github.com/multiformats/multistream-select
enum MultistreamToken {
    /// The protocol's own name, which both sides send first.
    static let header = "/multistream/1.0.0"
    /// The answer to a protocol that is not spoken.
    static let notAvailable = "na"
    /// Longest token accepted, newline included.
    static let maximumLength = 1024

    static func append(_ text: String, to buffer: inout ByteBuffer) {
        buffer.writeBytes(Varint.encode(UInt64(text.utf8.count + 1)))
        buffer.writeString(text)
        buffer.writeInteger(UInt8(ascii: "\n"))
    }

    /// Takes the next token; nil, and nothing taken, when it is not complete. Never needs more than about a KiB.
    static func read(from buffer: inout ByteBuffer) throws(WireFormatError) -> String? {
        var decoder = MultiformatsVarintDecoder()
        var prefixLength = 0
        for byte in buffer.readableBytesView {
            prefixLength += 1
            guard let length = try decoder.push(byte) else { continue }
            guard (1...UInt64(maximumLength)).contains(length) else {
                throw WireFormatError("multistream token of \(length) bytes")
            }
            guard buffer.readableBytes >= prefixLength + Int(length) else { return nil }
            buffer.moveReaderIndex(forwardBy: prefixLength)
            guard let line = buffer.readBytes(length: Int(length)), line.last == UInt8(ascii: "\n") else {
                throw WireFormatError("multistream token without newline")
            }
            guard let text = String(validating: line.dropLast(), as: UTF8.self) else {
                throw WireFormatError("multistream token is not UTF-8")
            }
            return text
        }
        return nil
    }
}
