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
