import DequeModule
import NIOCore
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

@Suite struct HoldBackTests {
    @Test func everythingIsHeldUntilReleased() {
        var hold = HoldBack(mode: .all, length: 6)
        #expect(hold.take(ByteBuffer(string: "abc")) == nil)
        #expect(hold.take(ByteBuffer(string: "def")) == nil)
        #expect(hold.heldBytes == 6)
        #expect(hold.release().map { String(buffer: $0) }.joined() == "abcdef")
        #expect(hold.heldBytes == 0)
    }

    @Test func nothingIsHeldWhenNothingIsChecked() {
        var hold = HoldBack(mode: .nothing, length: 6)
        #expect(hold.take(ByteBuffer(string: "abc")) == ByteBuffer(string: "abc"))
        #expect(hold.release().isEmpty)
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
        var hold = HoldBack(mode: .tail(Int64(tail)), length: Int64(length))
        var passed: [UInt8] = []
        var position = 0
        while position < length {
            let count = min(Int.random(in: 1...50, using: &random), length - position)
            if let free = hold.take(ByteBuffer(bytes: bytes[position..<position + count])) {
                passed += Array(free.readableBytesView)
            }
            position += count
            #expect(passed.count + hold.heldBytes == position)
        }
        // At least one byte is missing, so that the body cannot end as if it were complete.
        #expect(passed.count == length - min(max(tail, 1), length))
        for chunk in hold.release() { passed += Array(chunk.readableBytesView) }
        #expect(passed == bytes)
    }
}
