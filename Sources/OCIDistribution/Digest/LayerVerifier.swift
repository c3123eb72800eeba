/// Checks a layer twice while it streams: its bytes as transferred against the digest and size in the manifest, and what
/// they inflate to against the diffID in the image config.
public struct LayerVerifier: ~Copyable, Sendable {
    /// The diffID the layer must have.
    public let diffID: Digest

    private var content: DigestVerifier
    private var layer: DiffIDHasher

    /// Starts a check.
    ///
    /// - Parameters:
    ///   - descriptor: the layer's descriptor in the manifest.
    ///   - diffID: the layer's entry in `rootfs.diff_ids` of the image config.
    ///   - limits: what the layer may inflate to.
    /// - Throws: ``LayerError/unsupportedCompression(_:)`` when the media type names one.
    public init(
        descriptor: Descriptor, diffID: Digest, limits: LayerLimits = LayerLimits()
    ) throws(LayerError) {
        if descriptor.mediaType.layerCompression == .zstd { throw .unsupportedCompression("zstd") }
        self.diffID = diffID
        content = DigestVerifier(expected: descriptor.digest, size: descriptor.size)
        layer = DiffIDHasher(algorithm: diffID.algorithm, limits: limits)
    }

    /// Takes the next bytes of the layer as they are transferred.
    ///
    /// - Throws: ``LayerError``; the stream must then be abandoned.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) throws(LayerError) {
        do throws(VerificationError) { try content.update(bytes) } catch { throw .content(error) }
        try layer.update(bytes)
    }

    /// Takes the next bytes of the layer; see ``update(_:)-(UnsafeRawBufferPointer)``.
    public mutating func update(_ bytes: [UInt8]) throws(LayerError) {
        try bytes.withUnsafeBufferPointer { (buffer) throws(LayerError) in try update(UnsafeRawBufferPointer(buffer)) }
    }

    /// Ends the stream and returns the uncompressed size in bytes.
    ///
    /// - Throws: ``LayerError``: first what is wrong with the bytes as transferred, then with what they inflate to.
    @discardableResult
    public consuming func finish() throws(LayerError) -> Int64 {
        let diffID = diffID
        do throws(VerificationError) { try content.finish() } catch { throw .content(error) }
        let result = try layer.finish()
        guard result.diffID == diffID else {
            throw .diffIDMismatch(expected: diffID, actual: result.diffID, uncompressedSize: result.uncompressedSize)
        }
        return result.uncompressedSize
    }
}

/// The limits beyond which a compressed layer is refused as a decompression bomb.
public struct LayerLimits: Sendable, Hashable {
    /// The largest uncompressed size in bytes.
    public var maximumUncompressedSize: Int64

    /// The largest number of uncompressed bytes for each compressed one. Deflate cannot exceed 1032; layers of zeros
    /// come close to it, so the ratio is enforced only beyond ``ratioAllowance``.
    public var maximumRatio: Int64

    /// Uncompressed bytes up to which the ratio is not enforced.
    public var ratioAllowance: Int64

    /// Makes limits; the defaults are 64 GiB, and a ratio of 200 once a layer has grown beyond 1 GiB.
    public init(
        maximumUncompressedSize: Int64 = 64 << 30, maximumRatio: Int64 = 200, ratioAllowance: Int64 = 1 << 30
    ) {
        self.maximumUncompressedSize = maximumUncompressedSize
        self.maximumRatio = maximumRatio
        self.ratioAllowance = ratioAllowance
    }
}

/// Why the bytes of a layer do not match its descriptor or its diffID.
public enum LayerError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The bytes as transferred differ from their descriptor.
    case content(VerificationError)
    /// The layer is compressed in a way that is not supported, such as zstd.
    case unsupportedCompression(String)
    /// The gzip stream is damaged near this offset into the compressed bytes.
    case malformedGzip(reason: String, offset: Int64)
    /// The gzip stream ends in the middle; `size` is the number of compressed bytes that came.
    case truncatedGzip(size: Int64)
    /// After the last gzip member follows something that is not another one, at this offset into the compressed bytes.
    case trailingGarbage(offset: Int64)
    /// Inflates to more than ``LayerLimits/maximumUncompressedSize``; in bytes.
    case tooLarge(limit: Int64)
    /// Inflates to more than ``LayerLimits/maximumRatio`` times its compressed size; sizes so far, in bytes.
    case ratioTooHigh(limit: Int64, compressed: Int64, uncompressed: Int64)
    /// The uncompressed bytes do not have the diffID in the image config.
    case diffIDMismatch(expected: Digest, actual: Digest, uncompressedSize: Int64)

    /// A sentence describing what is wrong.
    public var description: String {
        switch self {
        case .content(let error): error.description
        case .unsupportedCompression(let name): "layers compressed with \(name) cannot be verified: not supported"
        case .malformedGzip(let reason, let offset): "malformed gzip data near byte \(offset): \(reason)"
        case .truncatedGzip(let size): "the gzip data ends in the middle, after \(size) bytes"
        case .trailingGarbage(let offset): "the gzip data is followed by other data at byte \(offset)"
        case .tooLarge(let limit): "the layer inflates to more than the limit of \(limit) bytes"
        case .ratioTooHigh(let limit, let compressed, let uncompressed):
            "the layer inflates to more than \(limit) times its size (\(compressed) to \(uncompressed) bytes so far)"
        case .diffIDMismatch(let expected, let actual, let size):
            "the uncompressed layer does not match its diffID: expected \(expected), got \(actual) (\(size) bytes)"
        }
    }
}
