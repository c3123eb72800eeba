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
