import NIOConcurrencyHelpers
import OCIDistribution

extension OnDiskContentStore {
    /// Reads every blob and compares it with its digest, and every layer with its image's diffID.
    ///
    /// A damaged blob is not served any more, by this process or another that uses this library, until its file changes and
    /// hashes to its digest. One that was damaged before and is valid now is served again.
    ///
    /// - Parameters:
    ///   - digests: which blobs to verify; all when `nil`.
    ///   - progress: called with the progress, on any thread, at most once per MiB and blob.
    /// - Throws: ``ContentStoreError`` when the layout cannot be listed; `CancellationError`. Problems of
    ///   single blobs are in the report.
    public func verify(
        _ digests: [Digest]? = nil, progress: @escaping @Sendable (VerificationProgress) -> Void = { _ in }
    ) async throws -> VerificationReport {
        let catalog = tracker.catalog
        let plan = try await FileWork.run { try VerificationPlan(catalog: catalog, digests: digests) }
        let meter = VerificationMeter(plan: plan, report: progress)
        return try await withTaskCancellationHandler {
            try await verify(plan, meter)
        } onCancel: {
            meter.cancel()
        }
    }

    private func verify(_ plan: VerificationPlan, _ meter: VerificationMeter) async throws -> VerificationReport {
        var report = VerificationReport(blobs: [], layers: plan.unchecked, isRemembered: true)
        // Half of the threads, so that the store's other work continues meanwhile.
        let width = max(1, FileWork.threadCount / 2)
        try await withThrowingTaskGroup(of: BlobCheck.self) { group in
            var rest = plan.blobs[...]
            var running = 0
            while running > 0 || !rest.isEmpty {
                if running < width, let blob = rest.popFirst() {
                    group.addTask { try await self.check(blob, plan.claims[blob.digest] ?? [], meter) }
                    running += 1
                    continue
                }
                guard let check = try await group.next() else { break }
                running -= 1
                report.blobs.append(check.blob)
                report.layers += check.layers
                if !check.isRemembered { report.isRemembered = false }
            }
        }
        for digest in plan.missing {
            report.blobs.append(BlobVerdict(digest: digest, size: 0, isReferenced: true, outcome: .missing))
            for claim in plan.claims[digest] ?? [] {
                report.layers.append(claim.verdict(.unchecked("the layer is missing")))
            }
        }
        report.blobs.sort { $0.digest < $1.digest }
        report.layers.sort { ($0.manifest, $0.layer) < ($1.manifest, $1.layer) }
        return report
    }

    private struct BlobCheck: Sendable {
        var blob: BlobVerdict
        var layers: [LayerVerdict]
        var isRemembered = true
    }

    private func check(
        _ blob: VerificationPlan.Blob, _ claims: [VerificationPlan.LayerClaim], _ meter: VerificationMeter
    ) async throws -> BlobCheck {
        let digest = blob.digest
        let catalog = tracker.catalog
        let isReferenced = catalog.isReferenced(digest)
        func verdict(_ outcome: BlobVerdict.Outcome, size: Int64) -> BlobVerdict {
            BlobVerdict(digest: digest, size: size, isReferenced: isReferenced, outcome: outcome)
        }
        func bad(_ outcome: BlobVerdict.Outcome, size: Int64) -> BlobCheck {
            BlobCheck(
                blob: verdict(outcome, size: size),
                layers: claims.map { $0.verdict(.unchecked("the layer's bytes are damaged")) })
        }
        defer { meter.finish(blob) }
        if let problem = blob.problem { return bad(.unreadable(problem), size: blob.size) }
        let result: (file: HashedFile, layers: [LayerVerdict])?
        do {
            result = try await FileWork.run {
                try Self.hash(digest, in: catalog.directory(digest.algorithm), claims, meter)
            }
        } catch let error as ContentStoreError {
            if error == .closed { throw CancellationError() }
            return bad(.unreadable("\(error)"), size: blob.size)
        }
        guard let (file, layers) = result else {
            return bad(.unreadable("it changed or was removed while it was read"), size: blob.size)
        }
        guard file.digest == digest else {
            let expected = catalog.expectedSize(digest)
            let isTruncated = expected.map { $0 > file.identity.size } ?? false
            let outcome: BlobVerdict.Outcome =
                isTruncated ? .truncated(expected: expected ?? 0) : .altered(actual: file.digest)
            var check = bad(outcome, size: file.identity.size)
            check.isRemembered = try await tracker.markDamaged(
                digest, file.identity, reason: "its bytes have the digest \(file.digest)")
            return check
        }
        try await tracker.markValid(digest, file.identity)
        return BlobCheck(blob: verdict(.sound, size: file.identity.size), layers: layers)
    }

    /// Hashes a blob and, in the same pass, what it inflates to. Blocks.
    private static func hash(
        _ digest: Digest, in directory: Directory?, _ claims: [VerificationPlan.LayerClaim],
        _ meter: VerificationMeter
    ) throws(ContentStoreError) -> (file: HashedFile, layers: [LayerVerdict])? {
        let algorithms = Set(claims.map(\.diffID.algorithm))
        let layers = algorithms.map { LayerHashing($0) }
        guard let file = try directory?.openFile(digest.hex) else { return nil }
        let hashed = try file.hash(digest.algorithm) { (bytes) throws(ContentStoreError) in
            for layer in layers { layer.update(bytes) }
            guard meter.add(bytes.count, of: digest) else { throw .closed }
        }
        guard let hashed else { return nil }
        var outcomes: [DigestAlgorithm: LayerHashing.Outcome] = [:]
        for layer in layers { outcomes[layer.algorithm] = layer.finish() }
        return (
            hashed,
            claims.compactMap { claim in outcomes[claim.diffID.algorithm].map { claim.verdict(for: $0) } }
        )
    }
}

/// The uncompressed side of a layer being hashed. Used by one thread.
private final class LayerHashing {
    typealias Outcome = Result<Digest, LayerError>

    let algorithm: DigestAlgorithm
    private var hasher: DiffIDHasher?
    private var failure: LayerError?

    init(_ algorithm: DigestAlgorithm) {
        self.algorithm = algorithm
        hasher = DiffIDHasher(algorithm: algorithm)
    }

    func update(_ bytes: UnsafeRawBufferPointer) {
        guard failure == nil else { return }
        do throws(LayerError) { try hasher?.update(bytes) } catch { failure = error }
    }

    func finish() -> Outcome {
        if let failure { return .failure(failure) }
        guard let hasher = hasher.take() else { return .failure(.truncatedGzip(size: 0)) }
        do throws(LayerError) { return .success(try hasher.finish().diffID) } catch { return .failure(error) }
    }
}

extension VerificationPlan.LayerClaim {
    fileprivate func verdict(_ outcome: LayerVerdict.Outcome) -> LayerVerdict {
        LayerVerdict(manifest: manifest, layer: layer, diffID: diffID, outcome: outcome)
    }

    fileprivate func verdict(for result: LayerHashing.Outcome) -> LayerVerdict {
        switch result {
        case .success(let actual): verdict(actual == diffID ? .sound : .mismatch(actual: actual))
        case .failure(.unsupportedCompression(let name)): verdict(.unsupported(name))
        case .failure(let error): verdict(.damaged(error))
        }
    }
}

/// The blobs and layers to verify, found by reading names, manifests and configs.
struct VerificationPlan: Sendable {
    /// A blob's file.
    struct Blob: Sendable {
        var digest: Digest
        var size: Int64
        /// Why it cannot be read, if that is known already.
        var problem: String?
    }

    /// The diffID of a layer according to an image config.
    struct LayerClaim: Sendable {
        var manifest: Digest
        var layer: Digest
        var diffID: Digest
    }

    var blobs: [Blob] = []
    var missing: [Digest] = []
    var claims: [Digest: [LayerClaim]] = [:]
    /// Layers whose diffID is unknown.
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
        // An artifact's layers are not file systems.
        guard layers.contains(where: \.mediaType.isLayer) else { return }
        let diffIDs: [Digest]
        if let bytes = Self.read(image.config.digest, catalog), let config = try? ImageConfig.decode(from: bytes) {
            diffIDs = config.rootfs.diffIDs
        } else {
            // Some builders give a config a type of their own, and artifacts have file systems as layers, too.
            let reason =
                image.config.mediaType.isConfig
                ? "the image config \(image.config.digest) is missing or damaged"
                : "the config \(image.config.digest), of type \(printableASCII(image.config.mediaType.rawValue)), is no image config"
            return skip(digest, layers.filter(\.mediaType.isLayer), reason)
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

    /// Reads a manifest or config and verifies its digest.
    private static func read(_ digest: Digest, _ catalog: LayoutCatalog) -> [UInt8]? {
        guard let location = catalog.location(digest) else { return nil }
        guard let file = try? location.directory.openFile(digest.hex),
            let bytes = (try? file.readAll(limit: Manifest.maximumSize)) ?? nil,
            Digest.hash(digest.algorithm, of: bytes) == digest
        else { return nil }
        return bytes
    }
}

/// Sums up the progress of several threads and reports it.
final class VerificationMeter: Sendable {
    private struct State {
        var progress: VerificationProgress
        var isCancelled = false
    }

    private let state: NIOLockedValueBox<State>
    private let report: @Sendable (VerificationProgress) -> Void

    init(plan: VerificationPlan, report: @escaping @Sendable (VerificationProgress) -> Void) {
        self.report = report
        let total = plan.blobs.reduce(Int64(0)) { sum, blob in
            let (total, overflow) = sum.addingReportingOverflow(blob.size)
            return overflow ? .max : total
        }
        state = NIOLockedValueBox(
            State(
                progress: VerificationProgress(
                    current: nil, checkedBlobs: 0, totalBlobs: plan.blobs.count, checkedBytes: 0, totalBytes: total)))
    }

    func cancel() { state.withLockedValue { $0.isCancelled = true } }

    /// Counts bytes; `false` when the verification was cancelled.
    func add(_ count: Int, of digest: Digest) -> Bool {
        let state = state.withLockedValue { state in
            state.progress.current = digest
            state.progress.checkedBytes += Int64(count)
            return state
        }
        report(state.progress)
        return !state.isCancelled
    }

    /// Counts a blob.
    func finish(_ blob: VerificationPlan.Blob) {
        let progress = state.withLockedValue { state in
            state.progress.checkedBlobs += 1
            if state.progress.current == blob.digest { state.progress.current = nil }
            return state.progress
        }
        report(progress)
    }
}
