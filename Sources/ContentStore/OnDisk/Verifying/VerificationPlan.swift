import OCIDistribution

/// What is to be verified, found by reading names, manifests and configs.
struct VerificationPlan: Sendable {
    /// A blob's file.
    struct Blob: Sendable {
        var digest: Digest
        var size: Int64
        /// Why it cannot be read, if that is known already.
        var problem: String?
    }

    /// What an image says about a layer.
    struct LayerClaim: Sendable {
        var manifest: Digest
        var layer: Digest
        var diffID: Digest
    }

    var blobs: [Blob] = []
    var missing: [Digest] = []
    var claims: [Digest: [LayerClaim]] = [:]
    /// Layers whose diffID nobody says.
    var unchecked: [LayerVerdict] = []

    /// Reads what is in the layout. Blocks.
    ///
    /// - Parameter digests: which blobs to verify; all when `nil`.
    init(catalog: LayoutCatalog, digests: [Digest]?) throws(ContentStoreError) {
        var files: [Digest: Blob] = [:]
        for algorithm in DigestAlgorithm.allCases {
            guard let directory = catalog.directory(algorithm) else { continue }
            for name in try directory.entries() {
                guard let digest = try? Digest(parsing: "\(algorithm.rawValue):\(name)"),
                    let status = try directory.status(name)
                else { continue }
                files[digest] = Blob(
                    digest: digest, size: status.isRegular ? status.identity.size : 0,
                    problem: status.isRegular ? nil : "it is not a regular file")
            }
        }
        let wanted = digests.map { Set($0) }
        blobs = files.values.filter { wanted?.contains($0.digest) ?? true }.sorted { $0.digest < $1.digest }
        var absent: Set<Digest> = Set(wanted ?? []).subtracting(files.keys)
        if wanted == nil {
            for image in catalog.images where files[image.target.digest] == nil { absent.insert(image.target.digest) }
        }
        for digest in catalog.presentDigests.sorted() {
            guard let info = catalog.info(digest), info.mediaType.isImageManifest,
                let bytes = Self.read(digest, catalog),
                let manifest = try? Manifest.decode(from: bytes), case .image(let image) = manifest
            else { continue }
            if wanted == nil {
                for child in manifest.references where !child.mediaType.isNondistributable && files[child.digest] == nil
                {
                    absent.insert(child.digest)
                }
            }
            claim(digest, image, catalog, wanted: wanted)
        }
        missing = absent.sorted()
    }

    private mutating func claim(
        _ digest: Digest, _ image: ImageManifest, _ catalog: LayoutCatalog, wanted: Set<Digest>?
    ) {
        let layers = image.layers.filter { wanted?.contains($0.digest) ?? true }
        // An artifact's layers are not file systems, and its config is not an image's.
        guard image.config.mediaType.isConfig, layers.contains(where: \.mediaType.isLayer) else { return }
        let diffIDs: [Digest]
        if let bytes = Self.read(image.config.digest, catalog), let config = try? ImageConfig.decode(from: bytes) {
            diffIDs = config.rootfs.diffIDs
        } else {
            return skip(digest, layers, "the image config \(image.config.digest) is missing or bad")
        }
        guard diffIDs.count == image.layers.count else {
            return skip(
                digest, layers, "the image config names \(diffIDs.count) layers, the manifest \(image.layers.count)")
        }
        for (layer, diffID) in zip(image.layers, diffIDs) where wanted?.contains(layer.digest) ?? true {
            claims[layer.digest, default: []].append(
                LayerClaim(manifest: digest, layer: layer.digest, diffID: diffID))
        }
    }

    private mutating func skip(_ manifest: Digest, _ layers: [Descriptor], _ reason: String) {
        for layer in layers {
            unchecked.append(
                LayerVerdict(manifest: manifest, layer: layer.digest, diffID: nil, outcome: .unchecked(reason)))
        }
    }

    /// Reads a manifest or config, which the catalog holds only when its bytes are right.
    private static func read(_ digest: Digest, _ catalog: LayoutCatalog) -> [UInt8]? {
        guard let location = catalog.location(digest) else { return nil }
        guard let file = try? location.directory.openFile(digest.hex),
            let bytes = (try? file.readAll(limit: Manifest.maximumSize)) ?? nil,
            Digest.hash(digest.algorithm, of: bytes) == digest
        else { return nil }
        return bytes
    }
}
