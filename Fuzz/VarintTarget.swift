import NIOCore

@testable import Libp2p
@testable import PeerRoutingCore

/// Variable-length integers by both rules, and messages behind such a length.
func fuzzVarint(_ input: UnsafeBufferPointer<UInt8>) {
    let bytes = Array(input)
    var cursor = ByteCursor(bytes)
    if let value = try? Varint.readMultiformats(from: &cursor) {
        let length = Varint.encodedLength(value)
        require(cursor.position == length, "\(value) was read from \(cursor.position) bytes")
        require(Varint.encode(value) == Array(bytes.prefix(length)), "\(value) has two encodings")
    }
    cursor = ByteCursor(bytes)
    if let value = try? Varint.readProtobuf(from: &cursor) {
        require(cursor.position >= Varint.encodedLength(value), "\(value) was read from too few bytes")
    }
    requireSameInPieces(input, "delimited messages") { pieces in
        var decoder = DelimitedMessageDecoder(maximumLength: 300)
        var messages: [[UInt8]] = []
        var buffer = ByteBuffer()
        for var piece in pieces {
            buffer.writeBuffer(&piece)
            do {
                while let message = try decoder.next(from: &buffer) { messages.append(message) }
            } catch {
                return messages + [[0xff]]
            }
            require(decoder.bufferedBytes < 300, "\(decoder.bufferedBytes) bytes are held")
        }
        return messages
    }
}
