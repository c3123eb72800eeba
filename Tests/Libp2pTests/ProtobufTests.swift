import NIOCore
import PeerTestKit
import Testing

@testable import Libp2p

@Suite struct ProtobufTests {
    private func fields(_ bytes: [UInt8]) throws -> [ProtobufReader.Field] {
        var reader = ProtobufReader(bytes)
        var fields: [ProtobufReader.Field] = []
        while let field = try reader.next() { fields.append(field) }
        return fields
    }

    @Test func writesWhatItReads() throws {
        var writer = ProtobufWriter()
        writer.varint(1, 300)
        writer.bytes(2, [1, 2, 3])
        writer.string(3, "höhe")
        writer.message(16) { $0.varint(1, 0) }
        let got = try fields(writer.bytes)
        #expect(got.map(\.number) == [1, 2, 3, 16])
        #expect(got[0].value == .varint(300))
        #expect(got[1].value == .bytes([1, 2, 3]))
        #expect(got[2].value == .bytes(Array("höhe".utf8)[...]))
        #expect(got[3].value == .bytes([8, 0]))
    }

    @Test func readsEveryWireTypeAndSkipsGroups() throws {
        // 1: varint, 2: fixed64, group 3 { 1: varint, group 4 {} }, 5: fixed32
        let bytes: [UInt8] = [
            0x08, 0x05, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1b, 0x08, 0x01, 0x23, 0x24, 0x1c, 0x2d, 2, 0, 0, 0,
        ]
        let got = try fields(bytes)
        #expect(got.map(\.number) == [1, 2, 5])
        #expect(got[1].value == .fixed64(1))
        #expect(got[2].value == .fixed32(2))
    }

    @Test(
        arguments: [
            [0x0a, 0x05, 1, 2],  // length beyond the end
            [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],  // length of 2^64-1
            [0x08],  // no value
            [0x00, 0x01],  // field 0
            [0x0e, 0x01], [0x0f, 0x01],  // wire types 6 and 7
            [0x0c],  // group end alone
            [0x0b, 0x14],  // another group's end
            [0x0b],  // unfinished group
            [0x09, 1, 2, 3],  // short fixed64
        ] as [[UInt8]])
    func refusesMalformedInput(_ bytes: [UInt8]) {
        #expect(throws: WireFormatError.self) { try fields(bytes) }
    }

    @Test func nestingIsBounded() throws {
        var reader = ProtobufReader([0x08, 0x01])
        for _ in 1..<ProtobufReader.maximumDepth { reader = try reader.nested([0x08, 0x01]) }
        #expect(throws: WireFormatError.self) { try reader.nested([0x08, 0x01]) }
        #expect(throws: WireFormatError.self) { try fields([UInt8](repeating: 0x0b, count: 100_000)) }
    }

    @Test func invalidUTF8IsNotText() {
        #expect(throws: WireFormatError.self) { try ProtobufReader.string([0xff, 0xfe]) }
    }

    @Test func mutatedMessagesNeverCrash() throws {
        var random = SplitMix64(seed: 3)
        let samples = try Vectors.load().kad.values.sorted().map { hex($0) }
        for round in 0..<20_000 {
            let input = random.mutate(samples[round % samples.count])
            var pending = [ProtobufReader(input)]
            while var reader = pending.popLast() {
                while let field = try? reader.next() {
                    if case .bytes(let bytes) = field.value, let inner = try? reader.nested(bytes) {
                        pending.append(inner)
                    }
                }
            }
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
