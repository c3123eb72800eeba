import NIOCore
import Testing

@testable import PeerRouting

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

    @Test func delimitedMessagesInFragmentsOfAnySize() throws {
        var random = SplitMix64(seed: 2)
        let messages = [0, 1, 127, 128, 300, 5000].map { count in
            (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
        }
        let wire = messages.flatMap { DelimitedMessage.encode($0) }
        for size in [1, 2, 3, 7, 129, 10000] {
            var decoder = DelimitedMessageDecoder(maximumLength: 5000)
            var got: [[UInt8]] = []
            for start in stride(from: 0, to: wire.count, by: size) {
                var buffer = ByteBuffer(bytes: wire[start..<min(start + size, wire.count)])
                while let message = try decoder.next(from: &buffer) { got.append(message) }
                #expect(buffer.readableBytes == 0)
            }
            #expect(got == messages)
            #expect(decoder.isBetweenMessages)
        }
    }

    @Test func delimitedMessageOverItsLimitIsRefusedBeforeItsBytes() throws {
        var decoder = DelimitedMessageDecoder(maximumLength: 100)
        var buffer = ByteBuffer(bytes: Varint.encode(101))
        #expect(throws: WireFormatError.self) { try decoder.next(from: &buffer) }
        var huge = DelimitedMessageDecoder(maximumLength: .max)
        var claim = ByteBuffer(bytes: Varint.encode(UInt64(Int.max)) + [1, 2, 3])
        #expect(try huge.next(from: &claim) == nil)
        #expect(huge.bufferedBytes == 3)
    }
}
