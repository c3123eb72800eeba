import NIOCore

/// The header fields of one request, kept as the bytes that arrived and decoded only when asked for.
///
/// Names compare without regard to case (RFC 9110 §5.1).
public struct HeaderFields: Sendable {
    /// Where one field lies, as offsets from the readable start of `bytes`.
    struct Field: Sendable {
        var nameStart: UInt32
        var nameLength: UInt32
        var valueStart: UInt32
        var valueLength: UInt32
    }

    private let bytes: ByteBuffer
    private let index: [Field]

    init(bytes: ByteBuffer, index: [Field]) {
        self.bytes = bytes
        self.index = index
    }

    /// Number of fields, repeated names counted each time.
    public var count: Int { index.count }

    /// The value of the first field called `name`, without the blanks around it, or nil if there is none.
    public subscript(name: String) -> String? {
        guard let field = index.first(where: { matches($0, name) }) else { return nil }
        return value(of: field)
    }

    /// Every value of the fields called `name`, in the order they came.
    public func values(of name: String) -> [String] {
        index.filter { matches($0, name) }.map(value(of:))
    }

    /// Whether a field called `name` is there.
    public func contains(_ name: String) -> Bool {
        index.contains { matches($0, name) }
    }

    private func value(of field: Field) -> String {
        bytes.getString(at: bytes.readerIndex + Int(field.valueStart), length: Int(field.valueLength)) ?? ""
    }

    private func matches(_ field: Field, _ name: String) -> Bool {
        name.utf8.count == Int(field.nameLength)
            && bytes.withUnsafeReadableBytes { raw in
                var position = Int(field.nameStart)
                for byte in name.utf8 {
                    guard lowercasedASCII(raw[position]) == lowercasedASCII(byte) else { return false }
                    position += 1
                }
                return true
            }
    }
}

/// `byte` with an ASCII capital made small.
@inline(__always)
func lowercasedASCII(_ byte: UInt8) -> UInt8 {
    byte &- 0x41 < 26 ? byte | 0x20 : byte
}
