import PeerTestKit
import Testing

@testable import PeerRoutingCore

@Suite struct VarintTests {
    private func multiformats(_ bytes: [UInt8]) throws -> UInt64 {
        var cursor = ByteCursor(bytes)
        return try Varint.readMultiformats(from: &cursor)
    }

    private func protobuf(_ bytes: [UInt8]) throws -> UInt64 {
        var cursor = ByteCursor(bytes)
        return try Varint.readProtobuf(from: &cursor)
    }

    @Test func vectors() throws {
        for (text, encoded) in try Vectors.load().uvarint {
            let value = try #require(UInt64(text))
            #expect(hexText(Varint.encode(value)) == encoded)
            #expect(try multiformats(hex(encoded)) == value)
            #expect(try protobuf(hex(encoded)) == value)
            #expect(Varint.encodedLength(value) == encoded.count / 2)
        }
    }

    @Test func multiformatsIsMinimalAndAtMostNineBytes() throws {
        #expect(try multiformats([UInt8](repeating: 0xff, count: 8) + [0x7f]) == UInt64.max >> 1)
        #expect(throws: WireFormatError.self) { try multiformats([UInt8](repeating: 0xff, count: 9) + [0x01]) }
        #expect(throws: WireFormatError.self) { try multiformats([0x86, 0x00]) }
        #expect(throws: WireFormatError.self) { try multiformats([0x80]) }
        #expect(throws: WireFormatError.self) { try multiformats([]) }
    }

    @Test func protobufTakesPaddingAndTenBytes() throws {
        #expect(try protobuf([0x86, 0x00]) == 6)
        #expect(try protobuf([UInt8](repeating: 0xff, count: 9) + [0x01]) == .max)
        #expect(throws: WireFormatError.self) { try protobuf([UInt8](repeating: 0xff, count: 9) + [0x02]) }
        #expect(throws: WireFormatError.self) { try protobuf([UInt8](repeating: 0x80, count: 11)) }
    }

    @Test func roundTripOfRandomNumbers() throws {
        var random = SplitMix64(seed: 1)
        for _ in 0..<2000 {
            let value = random.next() >> UInt64.random(in: 0...63, using: &random)
            let encoded = Varint.encode(value)
            #expect(try protobuf(encoded) == value)
            #expect(encoded.count == Varint.encodedLength(value))
            if value >> 63 == 0 { #expect(try multiformats(encoded) == value) }
        }
    }
}
