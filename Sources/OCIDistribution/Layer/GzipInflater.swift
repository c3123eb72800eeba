import CZlib

/// Inflates a gzip stream (RFC 1952) of one or more members piece by piece, in constant memory: zlib's window and one
/// output buffer.
struct GzipInflater: ~Copyable, @unchecked Sendable {
    // Unchecked: both allocations are owned by this noncopyable value alone. The stream is on the heap because zlib keeps
    // a pointer to it.
    private let stream: UnsafeMutablePointer<z_stream>
    private let output: UnsafeMutableRawBufferPointer

    /// Whether one member has ended and no byte of another has come.
    private var isBetweenMembers = false
    private var isFirstMember = true

    /// Compressed bytes taken so far.
    private(set) var consumed: Int64 = 0

    /// Large enough for hashing at full speed.
    private static let outputSize = 128 << 10

    init() {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        output = .allocate(byteCount: Self.outputSize, alignment: 16)
        // 15 bits of window, plus 16 for a gzip wrapper and nothing else.
        let status = inflateInit2_(stream, 15 + 16, zlibVersion(), Int32(MemoryLayout<z_stream>.size))
        // Only lack of memory leads here.
        guard status == Z_OK else { fatalError("zlib cannot start: status \(status)") }
    }

    deinit {
        inflateEnd(stream)
        stream.deallocate()
        output.deallocate()
    }

    /// Takes compressed bytes and hands what they inflate to to `body`, in pieces that are valid during the call.
    mutating func inflate(
        _ input: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws(LayerError) -> Void
    ) throws(LayerError) {
        // zlib counts input in 32 bits.
        var start = 0
        while start < input.count {
            let end = min(start + (1 << 30), input.count)
            try inflate(piece: UnsafeRawBufferPointer(rebasing: input[start..<end]), body)
            start = end
        }
    }

    private mutating func inflate(
        piece: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws(LayerError) -> Void
    ) throws(LayerError) {
        guard let base = piece.baseAddress else { return }
        // zlib does not write to its input.
        stream.pointee.next_in = UnsafeMutablePointer(mutating: base.assumingMemoryBound(to: UInt8.self))
        stream.pointee.avail_in = UInt32(piece.count)
        defer {
            consumed += Int64(piece.count) - Int64(stream.pointee.avail_in)
            stream.pointee.next_in = nil
            stream.pointee.avail_in = 0
        }
        var isOutputFull = false
        while stream.pointee.avail_in > 0 || isOutputFull {
            if isBetweenMembers {
                guard inflateReset(stream) == Z_OK else { throw .malformedGzip(reason: "zlib state", offset: consumed) }
                isBetweenMembers = false
                isFirstMember = false
            }
            stream.pointee.next_out = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
            stream.pointee.avail_out = UInt32(output.count)
            let status = CZlib.inflate(stream, Z_NO_FLUSH)
            let produced = output.count - Int(stream.pointee.avail_out)
            if produced > 0 { try body(UnsafeRawBufferPointer(rebasing: output[..<produced])) }
            isOutputFull = stream.pointee.avail_out == 0
            switch status {
            case Z_OK: break
            case Z_STREAM_END:
                isBetweenMembers = true
                isOutputFull = false
            case Z_BUF_ERROR where stream.pointee.avail_in == 0:
                // A full buffer had held all the output there was.
                isOutputFull = false
            default:
                let offset = consumed + Int64(piece.count) - Int64(stream.pointee.avail_in)
                if !isFirstMember, stream.pointee.total_out == 0 { throw .trailingGarbage(offset: offset) }
                let reason = stream.pointee.msg.map { String(cString: $0) } ?? "zlib status \(status)"
                throw .malformedGzip(reason: reason, offset: offset)
            }
        }
    }

    /// Checks that the stream is complete.
    func finish() throws(LayerError) {
        guard isBetweenMembers else { throw .truncatedGzip(size: consumed) }
    }
}
