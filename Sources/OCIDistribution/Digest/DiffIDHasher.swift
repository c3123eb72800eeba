import CZlib

/// Computes the diffID of a layer (OCI image specification, config.md, "Layer DiffID"): the digest of its uncompressed
/// bytes, from the bytes as they are transferred, in constant memory.
///
/// Compression is detected from the first bytes, as container runtimes do, not from the media type.
public struct DiffIDHasher: ~Copyable, Sendable {
    /// The result of hashing a layer.
    public struct Result: Sendable, Hashable {
        /// The digest of the uncompressed bytes.
        public var diffID: Digest
        /// The number of uncompressed bytes.
        public var uncompressedSize: Int64
        /// How the layer was compressed.
        public var compression: MediaType.Compression
    }

    /// Compressed bytes taken so far.
    public private(set) var compressedSize: Int64 = 0

    /// Uncompressed bytes so far.
    public private(set) var uncompressedSize: Int64 = 0

    private let limits: LayerLimits
    private var hasher: DigestHasher
    private var inflater: GzipInflater?
    private var failure: LayerError?

    /// The first bytes, until there are enough to detect the compression; nil afterwards.
    private var head: [UInt8]? = []

    /// The length of the longest magic number in bytes.
    private static let headSize = 4

    /// Starts on a layer.
    public init(algorithm: DigestAlgorithm = .sha256, limits: LayerLimits = LayerLimits()) {
        self.limits = limits
        hasher = DigestHasher(algorithm)
    }

    /// Takes the next bytes of the layer as they are transferred.
    ///
    /// - Throws: ``LayerError`` for damaged, unsupported or excessive content. Every later call throws it again.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) throws(LayerError) {
        if let failure { throw failure }
        do throws(LayerError) {
            compressedSize += Int64(bytes.count)
            guard var first = head else { return try process(bytes) }
            let taken = min(Self.headSize - first.count, bytes.count)
            first += bytes[..<taken]
            head = first
            guard first.count == Self.headSize else { return }
            try decide(on: first)
            try process(UnsafeRawBufferPointer(rebasing: bytes[taken...]))
        } catch {
            failure = error
            throw error
        }
    }

    /// Takes the next bytes of the layer; see ``update(_:)-(UnsafeRawBufferPointer)``.
    public mutating func update(_ bytes: [UInt8]) throws(LayerError) {
        try bytes.withUnsafeBufferPointer { (buffer) throws(LayerError) in try update(UnsafeRawBufferPointer(buffer)) }
    }

    /// Ends the layer.
    ///
    /// - Throws: ``LayerError``, such as ``LayerError/truncatedGzip(size:)``.
    public consuming func finish() throws(LayerError) -> Result {
        if let failure { throw failure }
        if let head { try decide(on: head) }
        try inflater?.finish()
        let compression: MediaType.Compression = inflater == nil ? .none : .gzip
        let size = uncompressedSize
        return Result(diffID: hasher.finalize(), uncompressedSize: size, compression: compression)
    }

    /// Chooses by the first bytes, fewer than four only when the layer is shorter.
    private mutating func decide(on first: [UInt8]) throws(LayerError) {
        head = nil
        if first.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) { throw .unsupportedCompression("zstd") }
        if first.starts(with: [0x1F, 0x8B]) { inflater = GzipInflater() }
        try first.withUnsafeBufferPointer { (buffer) throws(LayerError) in try process(UnsafeRawBufferPointer(buffer)) }
    }

    private mutating func process(_ bytes: UnsafeRawBufferPointer) throws(LayerError) {
        guard inflater != nil else { return try take(bytes, limits: limits) }
        // Taken out for the call, as the closure changes the rest of this value.
        var inflater = inflater.take()
        defer { self.inflater = inflater.take() }
        try inflater?.inflate(bytes) { (output) throws(LayerError) in try take(output, limits: limits) }
    }

    private mutating func take(_ bytes: UnsafeRawBufferPointer, limits: LayerLimits) throws(LayerError) {
        uncompressedSize += Int64(bytes.count)
        if uncompressedSize > limits.maximumUncompressedSize { throw .tooLarge(limit: limits.maximumUncompressedSize) }
        if uncompressedSize > limits.ratioAllowance, uncompressedSize / max(1, limits.maximumRatio) > compressedSize {
            throw .ratioTooHigh(
                limit: limits.maximumRatio, compressed: compressedSize, uncompressed: uncompressedSize)
        }
        hasher.update(bytes)
    }
}

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
    /// Whether zeros followed a member.
    private var isPadded = false

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

    /// Inflates bytes and calls `body` with the output, in pieces that are valid during the call.
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
                // Padding with zeros, which GNU gzip ignores as well, is not another member.
                while stream.pointee.avail_in > 0, stream.pointee.next_in?.pointee == 0 {
                    stream.pointee.next_in = stream.pointee.next_in?.advanced(by: 1)
                    stream.pointee.avail_in -= 1
                    isPadded = true
                }
                if stream.pointee.avail_in == 0 { break }
                if isPadded {
                    throw .trailingGarbage(offset: consumed + Int64(piece.count) - Int64(stream.pointee.avail_in))
                }
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
