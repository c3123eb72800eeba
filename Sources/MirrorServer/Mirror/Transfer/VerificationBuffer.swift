import DequeModule
import NIOCore

/// Buffers the bytes that may not be sent before the digest of the whole body is verified.
struct VerificationBuffer: Sendable {
    /// How much is buffered.
    enum Mode: Sendable, Hashable {
        /// Nothing: the bytes are not verified.
        case nothing
        /// The whole body: a wrong one can still be replaced by another peer's.
        case all
        /// The last bytes, at least one: a wrong body cannot be completed.
        case tail(Int64)
    }

    let mode: Mode
    private let length: Int64
    private var taken: Int64 = 0
    private(set) var chunks: Deque<ByteBuffer> = []
    private var isReleased: Bool
    /// Bytes buffered now.
    private(set) var bufferedBytes = 0

    /// - Parameter length: bytes of the whole body.
    init(mode: Mode, length: Int64) {
        self.mode = mode
        self.length = length
        isReleased = mode == .nothing
    }

    /// Adds the next bytes of the body.
    ///
    /// - Returns: the bytes of them that may be sent now.
    mutating func append(_ bytes: ByteBuffer) -> ByteBuffer? {
        var bytes = bytes
        let start = taken
        taken += Int64(bytes.readableBytes)
        if isReleased { return bytes }
        let free: Int
        switch mode {
        case .nothing: free = bytes.readableBytes
        case .all: free = 0
        case .tail(let tail):
            let boundary = length - min(max(tail, 1), length)
            free = Int(min(max(boundary - start, 0), Int64(bytes.readableBytes)))
        }
        let passing = free > 0 ? bytes.readSlice(length: free) : nil
        if bytes.readableBytes > 0 {
            bufferedBytes += bytes.readableBytes
            chunks.append(bytes)
        }
        return passing
    }

    /// The digest is verified.
    ///
    /// - Returns: everything buffered, in order.
    mutating func release() -> Deque<ByteBuffer> {
        isReleased = true
        bufferedBytes = 0
        defer { chunks = [] }
        return chunks
    }
}

extension ByteBuffer {
    /// Copies small slices, so that a retained slice does not pin a large receive buffer: the memory of what is buffered or
    /// waits to be hashed is about what it is counted for, however small a peer's pieces are.
    func withoutSpareStorage() -> ByteBuffer {
        guard readableBytes < storageCapacity / 4 else { return self }
        var copy = ByteBufferAllocator().buffer(capacity: readableBytes)
        copy.writeImmutableBuffer(self)
        return copy
    }
}
