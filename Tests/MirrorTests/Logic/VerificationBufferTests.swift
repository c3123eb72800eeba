import DequeModule
import NIOCore
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

@Suite struct VerificationBufferTests {
    @Test func everythingIsHeldUntilReleased() {
        var buffer = VerificationBuffer(mode: .all, length: 6)
        #expect(buffer.append(ByteBuffer(string: "abc")) == nil)
        #expect(buffer.append(ByteBuffer(string: "def")) == nil)
        #expect(buffer.bufferedBytes == 6)
        #expect(buffer.release().map { String(buffer: $0) }.joined() == "abcdef")
        #expect(buffer.bufferedBytes == 0)
    }

    @Test func nothingIsHeldWhenNothingIsChecked() {
        var buffer = VerificationBuffer(mode: .nothing, length: 6)
        #expect(buffer.append(ByteBuffer(string: "abc")) == ByteBuffer(string: "abc"))
        #expect(buffer.release().isEmpty)
    }

    /// Pieces of a network packet that came in a large buffer do not keep it.
    @Test func smallPiecesDoNotKeepLargeBuffers() throws {
        var buffer = ByteBufferAllocator().buffer(capacity: 64 * 1024)
        buffer.writeBytes(0..<100 as Range<UInt8>)
        let slice = buffer.readSlice(length: 90)
        let piece = try #require(slice)
        let copy = piece.withoutSpareStorage()
        #expect(copy == piece && copy.storageCapacity <= 128)
        let large = ByteBuffer(repeating: 7, count: 60 * 1024)
        #expect(large.withoutSpareStorage().storageCapacity == large.storageCapacity)
    }

    @Test(arguments: 0..<100)
    func theTailIsHeldHoweverTheBodyIsCut(seed: Int) {
        var random = SplitMix64(seed: UInt64(seed))
        let length = Int.random(in: 1...300, using: &random)
        let tail = Int.random(in: 0...400, using: &random)
        let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0) }
        var buffer = VerificationBuffer(mode: .tail(Int64(tail)), length: Int64(length))
        var passed: [UInt8] = []
        var position = 0
        while position < length {
            let count = min(Int.random(in: 1...50, using: &random), length - position)
            if let free = buffer.append(ByteBuffer(bytes: bytes[position..<position + count])) {
                passed += Array(free.readableBytesView)
            }
            position += count
            #expect(passed.count + buffer.bufferedBytes == position)
        }
        // At least one byte is missing, so that the body cannot end as if it were complete.
        #expect(passed.count == length - min(max(tail, 1), length))
        for chunk in buffer.release() { passed += Array(chunk.readableBytesView) }
        #expect(passed == bytes)
    }
}
