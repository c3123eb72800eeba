import OCIDistribution

/// Image manifests and configs.
func fuzzManifest(_ input: UnsafeBufferPointer<UInt8>) {
    let type = MediaType.detect(manifestJSON: input)
    if let manifest = try? Manifest.decode(from: input) {
        require(manifest.references.allSatisfy { $0.size >= 0 }, "a negative size")
        require(type == manifest.mediaType, "detected another type than was decoded")
    }
    _ = try? ImageConfig.decode(from: input)
}
