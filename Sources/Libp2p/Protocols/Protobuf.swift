import NIOCore

/// Reads the fields of one protocol-buffers message, whatever they are.
///
/// Lengths are checked against the bytes at hand before anything is taken, nested messages go at most
/// ``maximumDepth`` deep, unknown fields are the caller's to ignore, and groups (deprecated, and sent by no libp2p implementation) are
/// skipped without recursion.
package struct ProtobufReader: Sendable {
    /// Messages inside messages, counting the outermost as 1.
    package static let maximumDepth = 8

    /// A field's value by its wire type.
    package enum Value: Sendable, Equatable {
        case varint(UInt64)
        case fixed64(UInt64)
        case bytes(ArraySlice<UInt8>)
        case fixed32(UInt32)
    }

    /// One field; match `number` and the case of `value` together and ignore everything else.
    package struct Field: Sendable, Equatable {
        package let number: Int
        package let value: Value
    }

    private var cursor: ByteCursor
    private let depth: Int

    package init(_ bytes: ArraySlice<UInt8>) {
        cursor = ByteCursor(bytes)
        depth = 1
    }

    package init(_ bytes: [UInt8]) {
        self.init(bytes[...])
    }

    private init(_ bytes: ArraySlice<UInt8>, depth: Int) {
        cursor = ByteCursor(bytes)
        self.depth = depth
    }

    /// The next field, nil at the end of the message.
    package mutating func next() throws(WireFormatError) -> Field? {
        while !cursor.isAtEnd {
            let (number, wireType) = try readTag()
            if wireType == 3 {
                try skipGroup(number)
            } else if wireType == 4 {
                throw WireFormatError("protobuf group end without a start")
            } else {
                return Field(number: number, value: try readValue(wireType))
            }
        }
        return nil
    }

    /// A reader for a message that is a field of this one.
    package func nested(_ bytes: ArraySlice<UInt8>) throws(WireFormatError) -> ProtobufReader {
        guard depth < Self.maximumDepth else {
            throw WireFormatError("protobuf messages nested deeper than \(Self.maximumDepth)")
        }
        return ProtobufReader(bytes, depth: depth + 1)
    }

    /// A `string` field's text; protocol buffers demand valid UTF-8.
    package static func string(_ bytes: ArraySlice<UInt8>) throws(WireFormatError) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw WireFormatError("protobuf string is not UTF-8")
        }
        return text
    }

    private mutating func readTag() throws(WireFormatError) -> (number: Int, wireType: UInt8) {
        let tag = try Varint.readProtobuf(from: &cursor)
        let number = tag >> 3
        guard (1...0x1fff_ffff).contains(number) else { throw WireFormatError("protobuf field number \(number)") }
        return (Int(number), UInt8(tag & 7))
    }

    private mutating func readValue(_ wireType: UInt8) throws(WireFormatError) -> Value {
        switch wireType {
        case 0:
            return .varint(try Varint.readProtobuf(from: &cursor))
        case 1:
            return .fixed64(try readLittleEndian(8))
        case 2:
            let count = try Varint.readProtobuf(from: &cursor)
            guard count <= UInt64(cursor.remaining) else {
                throw WireFormatError("protobuf field of \(count) bytes where \(cursor.remaining) remain")
            }
            return .bytes(try cursor.read(Int(count)))
        case 5:
            return .fixed32(UInt32(truncatingIfNeeded: try readLittleEndian(4)))
        default:
            throw WireFormatError("protobuf wire type \(wireType)")
        }
    }

    private mutating func readLittleEndian(_ count: Int) throws(WireFormatError) -> UInt64 {
        try cursor.read(count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    private mutating func skipGroup(_ number: Int) throws(WireFormatError) {
        var open = [number]
        while let innermost = open.last {
            let (number, wireType) = try readTag()
            switch wireType {
            case 3:
                guard depth + open.count < Self.maximumDepth else {
                    throw WireFormatError("protobuf groups nested deeper than \(Self.maximumDepth)")
                }
                open.append(number)
            case 4:
                guard number == innermost else { throw WireFormatError("protobuf group ends as another began") }
                open.removeLast()
            default:
                _ = try readValue(wireType)
            }
        }
    }
}

/// Builds a protocol-buffers message. Fields appear in the order they are added.
package struct ProtobufWriter: Sendable {
    package private(set) var bytes: [UInt8] = []

    package init(reservingCapacity capacity: Int = 0) {
        bytes.reserveCapacity(capacity)
    }

    /// A number, boolean or enumeration. Zero is written too; proto3 callers leave out what they do not want to send.
    package mutating func varint(_ number: Int, _ value: UInt64) {
        tag(number, wireType: 0)
        Varint.append(value, to: &bytes)
    }

    package mutating func bytes(_ number: Int, _ value: some Collection<UInt8>) {
        tag(number, wireType: 2)
        Varint.append(UInt64(value.count), to: &bytes)
        bytes.append(contentsOf: value)
    }

    package mutating func string(_ number: Int, _ value: String) {
        bytes(number, value.utf8)
    }

    /// A message field, built by `body`.
    package mutating func message(_ number: Int, _ body: (inout ProtobufWriter) -> Void) {
        var inner = ProtobufWriter()
        body(&inner)
        bytes(number, inner.bytes)
    }

    private mutating func tag(_ number: Int, wireType: UInt64) {
        Varint.append(UInt64(number) << 3 | wireType, to: &bytes)
    }
}

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
