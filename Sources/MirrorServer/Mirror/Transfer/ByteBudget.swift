import Synchronization

/// Bounds the memory that transfers hold together, whatever their number.
///
/// Streaming transfers share ``streamingBytes`` by each taking a chunk size that shrinks as they become more; bodies
/// that are held until they are checked reserve their size, and are streamed instead when there is no room.
final class ByteBudget: Sendable {
    /// Bytes that streaming transfers may have under way together.
    let streamingBytes: Int
    /// Bytes that may be held until they are checked.
    let heldBytes: Int
    /// The bounds of one read from a peer.
    let chunk: ClosedRange<Int>

    private let streams = Atomic<Int>(0)
    private let held = Atomic<Int>(0)

    init(streamingBytes: Int, heldBytes: Int, chunk: ClosedRange<Int>) {
        self.streamingBytes = streamingBytes
        self.heldBytes = heldBytes
        self.chunk = chunk
    }

    /// Transfers under way.
    var activeStreams: Int { streams.load(ordering: .relaxed) }
    /// Bytes reserved by held bodies.
    var reservedBytes: Int { held.load(ordering: .relaxed) }

    /// The most bytes one transfer reads at a time now: two such chunks may be under way for each.
    var chunkBytes: Int {
        let share = streamingBytes / (2 * max(1, activeStreams))
        return min(max(share, chunk.lowerBound), chunk.upperBound)
    }

    /// Counts a transfer that begins.
    func beginStream() { streams.add(1, ordering: .relaxed) }
    /// Counts a transfer that has ended.
    func endStream() { streams.subtract(1, ordering: .relaxed) }

    /// Reserves room for a held body.
    ///
    /// - Returns: false when there is none; nothing is reserved then.
    func reserve(_ bytes: Int) -> Bool {
        let after = held.add(bytes, ordering: .relaxed).newValue
        if after <= heldBytes { return true }
        held.subtract(bytes, ordering: .relaxed)
        return false
    }

    /// Gives back what ``reserve(_:)`` took.
    func release(_ bytes: Int) { held.subtract(bytes, ordering: .relaxed) }
}
