import NIOCore

/// How large the next read from a peer may be: small for a head, as large as the budget allows for a body.
///
/// Used on the connection's event loop only.
final class ReceiveSizing: @unchecked Sendable {
    // Unchecked: both users, the channel and the connection's handler, live on one event loop.

    /// What is read at once while no body is being received. The channel keeps one buffer of this size while idle.
    static let headBytes = 4 * 1024

    private(set) var next = ReceiveSizing.headBytes
    private let memory: TransferMemory
    private var inBody = false

    init(memory: TransferMemory) { self.memory = memory }

    /// A body of this many bytes follows.
    func beginBody(_ bytes: Int64) {
        inBody = true
        next = Int(min(Int64(memory.chunkBytes), max(bytes, Int64(Self.headBytes))))
    }

    func endBody() {
        inBody = false
        next = Self.headBytes
    }

    /// Grows while reads are filled and shrinks while they are far from it.
    func record(_ count: Int) {
        guard inBody else { return }
        let limit = memory.chunkBytes
        if count >= next {
            next = min(next * 2, limit)
        } else if count < next / 4 {
            next = max(next / 2, 16 * 1024)
        }
        next = min(next, limit)
    }
}

/// Makes the buffers of a channel by a ``ReceiveSizing``. Each read gets a buffer of its own, because it is passed on.
struct RelayReceiveAllocator: RecvByteBufferAllocator {
    let sizing: ReceiveSizing

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer {
        allocator.buffer(capacity: sizing.next)
    }

    /// No hint: with one the channel would keep a large buffer for as long as the connection lives.
    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool {
        sizing.record(actualReadBytes)
        return true
    }
}
