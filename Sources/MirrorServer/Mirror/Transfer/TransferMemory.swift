import ResourceLimits
import Synchronization

/// Limits the memory of all transfers together, whatever their number.
///
/// Streaming transfers share ``streamingBytes`` by each reading chunks whose size shrinks as they become more; bodies that
/// are buffered until they are verified reserve their size in ``buffered``, and are streamed when there is no room.
final class TransferMemory: Sendable {
    /// Bytes that streaming transfers may have under way together.
    let streamingBytes: Int
    /// The limits of one read from a peer.
    let chunk: ClosedRange<Int>
    /// Bytes of bodies that are buffered until they are verified.
    let buffered: ByteBudget

    private let streams = Atomic<Int>(0)

    init(streamingBytes: Int, bufferedBytes: Int, chunk: ClosedRange<Int>) {
        self.streamingBytes = streamingBytes
        self.chunk = chunk
        buffered = ByteBudget(limit: bufferedBytes)
    }

    /// The most bytes one transfer reads at a time now: two such chunks may be under way for each.
    var chunkBytes: Int {
        let share = streamingBytes / (2 * max(1, streams.load(ordering: .relaxed)))
        return min(max(share, chunk.lowerBound), chunk.upperBound)
    }

    /// Counts a streaming transfer that starts.
    func beginStream() { streams.add(1, ordering: .relaxed) }
    /// Counts a streaming transfer that has ended.
    func endStream() { streams.subtract(1, ordering: .relaxed) }
}
