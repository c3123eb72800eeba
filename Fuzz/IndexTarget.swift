import OCIDistribution

/// Indexes: a document is either an index or an image manifest, never both.
func fuzzIndex(_ input: UnsafeBufferPointer<UInt8>) {
    let index = try? Manifest.decode(from: input, mediaType: .imageIndex)
    let image = try? Manifest.decode(from: input, mediaType: .imageManifest)
    require(index == nil || image == nil, "an index that is an image manifest too")
    if case .index(let index) = index {
        require(index.manifests.count <= ImageIndex.maximumManifestCount, "too many manifests")
        require(index.manifests.allSatisfy { $0.size >= 0 }, "a negative size")
    }
}
