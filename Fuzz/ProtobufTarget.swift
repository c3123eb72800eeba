@testable import Libp2p

/// Any protobuf message, its fields also taken for messages, as deep as the reader goes.
func fuzzProtobuf(_ input: UnsafeBufferPointer<UInt8>) {
    var work = 0
    func walk(_ reader: ProtobufReader, depth: Int) {
        require(depth <= ProtobufReader.maximumDepth, "nested \(depth) deep")
        var reader = reader
        while let field = try? reader.next() {
            work += 1
            require((1...0x1fff_ffff).contains(field.number), "field \(field.number)")
            guard case .bytes(let bytes) = field.value else { continue }
            require(bytes.count <= input.count, "a field longer than its message")
            if let nested = try? reader.nested(bytes) { walk(nested, depth: depth + 1) }
        }
    }
    walk(ProtobufReader(Array(input)), depth: 1)
    require(work <= input.count * ProtobufReader.maximumDepth, "\(work) fields in \(input.count) bytes")
}
