/// Reads the fields of one protocol-buffers message, whatever they are.
///
/// Lengths are checked against the bytes at hand before anything is taken, nested messages go at most
/// ``maximumDepth`` deep, unknown fields are the caller's to ignore, and groups (a relic nobody here sends) are
/// skipped without recursion.
package struct ProtobufReader: Sendable {
    /// Messages inside messages, counting the outermost as 1.
    package static let maximumDepth = 8

    /// A field's value as far as the wire tells it.
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
