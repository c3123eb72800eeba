import OCIDistribution

/// How far a verification is.
public struct VerificationProgress: Sendable, Hashable {
    /// A blob being hashed, if one is.
    public var current: Digest?
    /// Blobs done.
    public var checkedBlobs: Int
    /// Blobs to do in all.
    public var totalBlobs: Int
    /// Bytes hashed.
    public var checkedBytes: Int64
    /// Bytes to hash in all.
    public var totalBytes: Int64
}

/// What a verification found out about a blob.
public struct BlobVerdict: Sendable, Hashable {
    /// What is so.
    public enum Outcome: Sendable, Hashable {
        /// The bytes have the digest.
        case sound
        /// The file has fewer bytes than a manifest says, and another digest.
        case truncated(expected: Int64)
        /// The bytes have another digest.
        case altered(actual: Digest)
        /// A name or an image manifest refers to it, but there is no such file.
        case missing
        /// The file cannot be read, is not a regular file, or kept changing.
        case unreadable(String)
    }

    /// The digest the blob should have.
    public var digest: Digest
    /// The size of its file in bytes; 0 when there is none.
    public var size: Int64
    /// Whether a name or a manifest in the layout refers to it.
    public var isReferenced: Bool
    /// What is so.
    public var outcome: Outcome
}

/// What a verification found out about a layer's uncompressed bytes.
public struct LayerVerdict: Sendable, Hashable {
    /// What is so.
    public enum Outcome: Sendable, Hashable {
        /// They have the diffID that the image config says.
        case sound
        /// They have another diffID.
        case mismatch(actual: Digest)
        /// They cannot be had from the layer, which is damaged or inflates beyond all bounds.
        case damaged(LayerError)
        /// The layer is compressed in a way that is not supported.
        case unsupported(String)
        /// The layer itself is missing or bad, or the config does not say the diffID.
        case unchecked(String)
    }

    /// The image manifest.
    public var manifest: Digest
    /// The layer.
    public var layer: Digest
    /// The diffID that the image config says, if it does.
    public var diffID: Digest?
    /// What is so.
    public var outcome: Outcome
}

/// What a verification found.
public struct VerificationReport: Sendable, Hashable {
    /// All blobs, by digest.
    public var blobs: [BlobVerdict]
    /// All layers of all images whose manifest and config are there.
    public var layers: [LayerVerdict]
    /// Whether bad blobs are remembered on disk; `false` when the layout is read-only, and only this process knows.
    public var isRemembered: Bool

    /// Whether nothing is truncated, altered, damaged or unreadable.
    public var isSound: Bool {
        blobs.allSatisfy { $0.outcome == .sound || $0.outcome == .missing }
            && layers.allSatisfy {
                switch $0.outcome {
                case .sound, .unsupported, .unchecked: true
                case .mismatch, .damaged: false
                }
            }
    }

    /// Whether everything that is referred to is there. The manifests of an index may be missing, as an image for one
    /// platform is complete without the others.
    public var isComplete: Bool { blobs.allSatisfy { $0.outcome != .missing } }
}
