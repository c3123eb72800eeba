import OCIDistribution

/// What a store needs to know of a manifest's bytes.
package struct ManifestSummary: Sendable {
    /// Larger content is never parsed, in bytes.
    package static let sizeLimit = Int64(Manifest.maximumSize)

    /// The manifest's or index's own media type.
    package var mediaType: MediaType
    /// What it refers to.
    package var references: [Descriptor]

    /// Reads a manifest or index. One whose references cannot be understood is still what its shape says, and refers to
    /// nothing.
    ///
    /// - Returns: `nil` when the bytes are neither.
    package init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count <= Self.sizeLimit, let mediaType = MediaType.detect(manifestJSON: bytes),
            mediaType.isManifest
        else { return nil }
        self.mediaType = mediaType
        do throws(ManifestError) {
            references = try Manifest.decode(from: bytes, mediaType: mediaType).references
        } catch {
            references = []
        }
    }
}
