/// Why the bytes of a layer are not the layer that was promised.
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
    /// The uncompressed bytes hash to something else than the image config says.
    case diffIDMismatch(expected: Digest, actual: Digest, uncompressedSize: Int64)

    /// A sentence that says what is wrong.
    public var description: String {
        switch self {
        case .content(let error): error.description
        case .unsupportedCompression(let name): "layers compressed with \(name) cannot be checked: not supported"
        case .malformedGzip(let reason, let offset): "malformed gzip data near byte \(offset): \(reason)"
        case .truncatedGzip(let size): "the gzip data ends in the middle, after \(size) bytes"
        case .trailingGarbage(let offset): "the gzip data is followed by something else at byte \(offset)"
        case .tooLarge(let limit): "the layer inflates to more than the limit of \(limit) bytes"
        case .ratioTooHigh(let limit, let compressed, let uncompressed):
            "the layer inflates to more than \(limit) times its size (\(compressed) to \(uncompressed) bytes so far)"
        case .diffIDMismatch(let expected, let actual, let size):
            "the uncompressed layer does not match its diffID: expected \(expected), got \(actual) (\(size) bytes)"
        }
    }
}
