/// Unsigned variable-length integers: seven bits a byte, lowest group first (LEB128).
///
/// Two rules exist for the same bytes. Multiformats (multiaddr, multihash, message lengths) allows at most 9 bytes and
/// only the shortest form; protocol buffers allow 10 bytes and padding. Reading either with the other's rule breaks
/// interoperation or lets one value have several encodings, hence two readers.
package enum Varint {
    /// Appends the shortest encoding.
    package static func append(_ value: UInt64, to bytes: inout [UInt8]) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    package static func encode(_ value: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        append(value, to: &bytes)
        return bytes
    }

    /// The number of bytes ``append(_:to:)`` adds, 1 to 10.
    package static func encodedLength(_ value: UInt64) -> Int {
        max(1, (64 - value.leadingZeroBitCount + 6) / 7)
    }

    /// Reads a multiformats varint: 1 to 9 bytes, shortest form only.
    package static func readMultiformats(from cursor: inout ByteCursor) throws(WireFormatError) -> UInt64 {
        var decoder = MultiformatsVarintDecoder()
        while true {
            if let value = try decoder.push(try cursor.readByte()) { return value }
        }
    }

    /// Reads a protocol-buffers varint: 1 to 10 bytes, any padding.
    package static func readProtobuf(from cursor: inout ByteCursor) throws(WireFormatError) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<10 {
            let byte = try cursor.readByte()
            if index == 9, byte > 1 { throw WireFormatError("protobuf varint exceeds 64 bits") }
            value |= UInt64(byte & 0x7f) << UInt64(7 * index)
            if byte < 0x80 { return value }
        }
        throw WireFormatError("protobuf varint longer than 10 bytes")
    }
}

/// Reads a multiformats varint byte by byte, for lengths that arrive in fragments.
package struct MultiformatsVarintDecoder: Sendable {
    private var value: UInt64 = 0
    private var count = 0

    package init() {}

    /// True before the first byte.
    package var isEmpty: Bool { count == 0 }

    /// Takes one byte; the value when it was the last one.
    package mutating func push(_ byte: UInt8) throws(WireFormatError) -> UInt64? {
        if count >= 8, byte >= 0x80 { throw WireFormatError("varint longer than 9 bytes") }
        if byte == 0, count > 0 { throw WireFormatError("varint not in its shortest form") }
        value |= UInt64(byte & 0x7f) << UInt64(7 * count)
        count += 1
        return byte < 0x80 ? value : nil
    }
}

/// A reading position in received bytes. No read goes past the end and none copies more than it returns.
package struct ByteCursor: Sendable {
    private let bytes: ArraySlice<UInt8>
    package private(set) var position: Int

    package init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        position = bytes.startIndex
    }

    package init(_ bytes: [UInt8]) {
        self.init(bytes[...])
    }

    /// Bytes not yet read.
    package var remaining: Int { bytes.endIndex - position }
    package var isAtEnd: Bool { position == bytes.endIndex }

    package mutating func readByte() throws(WireFormatError) -> UInt8 {
        guard position < bytes.endIndex else { throw WireFormatError("input ends where a byte was expected") }
        defer { position += 1 }
        return bytes[position]
    }

    /// The next `count` bytes, sharing the input's storage.
    package mutating func read(_ count: Int) throws(WireFormatError) -> ArraySlice<UInt8> {
        guard count >= 0, count <= remaining else {
            throw WireFormatError("\(count) bytes claimed where \(remaining) remain")
        }
        defer { position += count }
        return bytes[position..<(position + count)]
    }

    /// The bytes from an earlier position up to here.
    package func slice(from start: Int) -> ArraySlice<UInt8> {
        bytes[start..<position]
    }

    /// The next bytes, their count given in front as a multiformats varint.
    package mutating func readLengthPrefixed() throws(WireFormatError) -> ArraySlice<UInt8> {
        let count = try Varint.readMultiformats(from: &self)
        guard count <= UInt64(remaining) else {
            throw WireFormatError("\(count) bytes claimed where \(remaining) remain")
        }
        return try read(Int(count))
    }
}

/// Bytes or text from outside that do not follow their format.
///
/// Every decoder of this module throws it. The message names what was wrong and, shortened, the input.
public struct WireFormatError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What was expected and what was found.
    public let message: String

    /// Makes an error with the given message.
    public init(_ message: String) {
        self.message = message
    }

    /// The message.
    public var description: String { message }

    /// Quotes text from outside for an error message: at most 80 characters, control characters escaped.
    package static func quote(_ text: some StringProtocol) -> String {
        let head = text.unicodeScalars.prefix(80)
        let quoted = head.map { $0.escaped(asASCII: false) }.joined()
        return head.endIndex == text.unicodeScalars.endIndex ? "\"\(quoted)\"" : "\"\(quoted)…\""
    }
}
