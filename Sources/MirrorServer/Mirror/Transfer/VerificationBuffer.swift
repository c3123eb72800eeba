import DequeModule
import NIOCore

/// Keeps back the bytes that may not reach the client before the digest of the whole has been checked.
struct HoldBack: Sendable {
    /// How much is kept back.
    enum Mode: Sendable, Hashable {
        /// Nothing: the bytes are not checked.
        case nothing
        /// Everything: a wrong body can still be replaced by another peer's.
        case all
        /// The last bytes, at least one: a wrong body cannot end as if it were complete.
        case tail(Int64)
    }

    let mode: Mode
    private let length: Int64
    private var taken: Int64 = 0
    private(set) var held: Deque<ByteBuffer> = []
    private(set) var isReleased: Bool
    /// Bytes kept back now.
    private(set) var heldBytes = 0

    /// - Parameter length: bytes of the whole body.
    init(mode: Mode, length: Int64) {
        self.mode = mode
        self.length = length
        isReleased = mode == .nothing
    }

    /// Takes the next bytes of the body; the ones returned may go to the client now.
    mutating func take(_ bytes: ByteBuffer) -> ByteBuffer? {
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
            heldBytes += bytes.readableBytes
            held.append(bytes)
        }
        return passing
    }

    /// The digest was right: everything kept back, in order. Bytes taken later pass.
    mutating func release() -> Deque<ByteBuffer> {
        isReleased = true
        heldBytes = 0
        defer { held = [] }
        return held
    }
}
