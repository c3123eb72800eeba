import OCIDistribution

/// The progress of a verification.
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

/// The result of verifying a blob.
public struct BlobVerdict: Sendable, Hashable {
    /// The result.
    public enum Outcome: Sendable, Hashable {
        /// The bytes have the digest.
        case sound
        /// The file has fewer bytes than in a manifest's descriptor, and another digest.
        case truncated(expected: Int64)
        /// The bytes have another digest.
        case altered(actual: Digest)
        /// A name or an image manifest refers to it, but there is no such file.
        case missing
        /// The file cannot be read, is not a regular file, or changed while it was read.
        case unreadable(String)
    }

    /// The digest the blob should have.
    public var digest: Digest
    /// The size of its file in bytes; 0 when there is none.
    public var size: Int64
    /// Whether a name or a manifest in the layout refers to it.
    public var isReferenced: Bool
    /// The result.
    public var outcome: Outcome
}

/// The result of verifying a layer's uncompressed bytes.
public struct LayerVerdict: Sendable, Hashable {
    /// The result.
    public enum Outcome: Sendable, Hashable {
        /// They have the diffID in the image config.
        case sound
        /// They have another diffID.
        case mismatch(actual: Digest)
        /// The layer cannot be decompressed, or inflates beyond the limits.
        case damaged(LayerError)
        /// The layer is compressed in a way that is not supported.
        case unsupported(String)
        /// The layer is missing or damaged, or the config has no diffID for it.
        case unchecked(String)
    }

    /// The image manifest.
    public var manifest: Digest
    /// The layer.
    public var layer: Digest
    /// The diffID in the image config, if there is one.
    public var diffID: Digest?
    /// The result.
    public var outcome: Outcome
}

/// The results of a verification.
public struct VerificationReport: Sendable, Hashable {
    /// All blobs, by digest.
    public var blobs: [BlobVerdict]
    /// All layers of all images whose manifest and config are there.
    public var layers: [LayerVerdict]
    /// Whether damaged blobs are recorded on disk; `false` when the layout is read-only and only this process knows.
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

    /// Whether all referenced content is present. The manifests of an index may be missing, as an image for one
    /// platform is complete without the others.
    public var isComplete: Bool { blobs.allSatisfy { $0.outcome != .missing } }
}
