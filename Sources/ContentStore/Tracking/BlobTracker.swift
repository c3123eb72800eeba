import Dispatch
import Logging
import NIOConcurrencyHelpers
import OCIDistribution

/// How a blob's file was found, which determines whether it is hashed before it is served.
enum BlobObservation: Sendable {
    /// It existed when the store was opened.
    case initialScan
    /// It got its name by a rename, as layout tools do when the file is complete.
    case renamed
    /// It was closed after having been written under its name: it is hashed before it is served.
    case written
    /// It exists: it is hashed before it is served, once it has stopped changing.
    case found
    /// This process hashed it in this state; nothing is known of any other state.
    case verified(FileIdentity)
    /// This process hashed it in this state and gave it its name; a file in another state was renamed by another writer.
    case published(FileIdentity)
}

/// Decides for each blob whether its file is served, is still changing, must be hashed first, or is damaged, and changes
/// the catalog accordingly. Used on the tracker's queue only.
final class BlobTracker: @unchecked Sendable {
    /// How long a file must not change before it is hashed.
    private static let stabilityInterval = DispatchTimeInterval.seconds(1)

    private let catalog: LayoutCatalog
    private let directories: LayoutDirectories
    private let queue: DispatchQueue
    private let log: LayoutLog
    private let hasher: BlobHasher
    private var quarantine = Quarantine()
    private var changing = ChangingFiles()

    init(
        catalog: LayoutCatalog, directories: LayoutDirectories, queue: DispatchQueue,
        stopped: NIOLockedValueBox<Bool>, log: LayoutLog
    ) {
        self.catalog = catalog
        self.directories = directories
        self.queue = queue
        self.log = log
        hasher = BlobHasher(catalog: catalog, queue: queue, stopped: stopped)
        hasher.onResult = { [weak self] digest, result in self?.finishHashing(digest, result) }
    }

    // MARK: Verbs

    /// Compares the catalog with the files of all blobs.
    ///
    /// - Throws: ``ContentStoreError``, only with `.initialScan`: later, what is known is kept.
    func rescan(_ observation: BlobObservation) throws(ContentStoreError) {
        let hadRecords = directories.records != nil
        var inaccessible = directories.openSubdirectories()
        if !hadRecords, directories.records != nil { loadRecords() }
        var seen: Set<Digest> = []
        for algorithm in DigestAlgorithm.allCases {
            guard let directory = catalog.directory(algorithm) else { continue }
            do throws(ContentStoreError) {
                try directory.forEachEntry { name in
                    guard let digest = try? Digest(parsing: "\(algorithm.rawValue):\(name)") else { return }
                    seen.insert(digest)
                    update(digest, observation)
                }
            } catch {
                if case .initialScan = observation { throw error }
                log.warnOnce("the blobs cannot be listed", error: error)
                inaccessible.insert(algorithm)
            }
        }
        // A directory that cannot be read does not show which blobs are missing.
        for digest in catalog.presentDigests
        where !seen.contains(digest) && !inaccessible.contains(digest.algorithm) {
            update(digest, observation)
        }
    }

    /// Compares the catalog with the file of a blob.
    func update(_ digest: Digest, _ observation: BlobObservation) {
        if catalog.directory(digest.algorithm) == nil, directories.rootState != .missing,
            directories.openSubdirectories().contains(digest.algorithm)
        {
            // Whether the file exists is unknown.
            return
        }
        let status: FileStatus?
        do throws(ContentStoreError) {
            status = try catalog.directory(digest.algorithm)?.status(digest.hex)
        } catch {
            return log.warnOnce("a blob cannot be examined", digest, error: error)
        }
        guard let status else { return stopServing(digest) }
        guard status.isRegular else {
            log.warnOnce("a blob is not served, as it is not a regular file; links are not followed", digest)
            return stopServing(digest)
        }
        let identity = status.identity
        var observation = observation
        switch observation {
        case .verified(let hashed), .published(let hashed):
            if hashed == identity {
                quarantine.remove(digest, root: directories.root)
                return serve(digest, identity)
            }
            if case .published = observation { observation = .renamed } else { observation = .found }
        case .initialScan, .renamed, .written, .found: break
        }
        if let damaged = quarantine[digest] {
            stopServing(digest)
            if damaged != identity { hash(digest, reason: "its former file was damaged") }
            return
        }
        let known = catalog.identity(digest)
        if known == identity { return }
        switch observation {
        case .initialScan, .renamed, .verified, .published:
            if let expected = catalog.expectedSize(digest), expected != identity.size {
                hash(digest, reason: "it has \(identity.size) bytes, a manifest says \(expected)")
            } else if case .initialScan = observation {
                // The first request brings a manifest into memory.
                serve(digest, identity, cachesManifest: false)
            } else {
                serve(digest, identity)
            }
        case .written: hash(digest, reason: nil)
        case .found:
            if known != nil { stopServing(digest) }
            hashWhenStable(digest, identity)
        }
    }

    /// Removes a blob from what is served.
    func stopServing(_ digest: Digest) {
        changing.remove(digest)
        catalog.remove(digest)
    }

    /// Keeps a damaged file from being served while it is in that state.
    ///
    /// - Returns: `false` when only this process remembers it.
    @discardableResult
    func markDamaged(_ digest: Digest, _ identity: FileIdentity, _ reason: String) -> Bool {
        guard (try? catalog.directory(digest.algorithm)?.status(digest.hex))?.identity == identity else {
            // Another file has the name now, of which nothing is known: if it is served, it stays so.
            if catalog.identity(digest) == identity { stopServing(digest) }
            update(digest, .found)
            return true
        }
        stopServing(digest)
        log.logger.error("a blob is damaged and not served", metadata: ["digest": "\(digest)", "reason": "\(reason)"])
        do throws(ContentStoreError) {
            try quarantine.add(digest, identity: identity, reason: reason, root: directories.root)
            if directories.records == nil { directories.openSubdirectories() }
            return true
        } catch {
            log.logger.warning(
                "a damaged blob is recorded in memory only",
                metadata: ["digest": "\(digest)", "error": "\(error)"])
            return false
        }
    }

    /// Serves a file that was hashed and has its digest, unless it is served already.
    func markValid(_ digest: Digest, _ identity: FileIdentity) {
        if quarantine[digest] != nil || catalog.identity(digest) != identity { update(digest, .verified(identity)) }
    }

    /// Reads all quarantine records.
    func loadRecords() { quarantine.load(from: directories.root) }

    /// Reads one quarantine record, which another process may have changed.
    func reloadRecord(_ digest: Digest) {
        if let records = directories.records { quarantine.reload(digest, from: records) }
    }

    // MARK: Serving

    /// Adds a blob to what is served. JSON is read and verified first, as it may be a manifest.
    private func serve(_ digest: Digest, _ identity: FileIdentity, cachesManifest: Bool = true) {
        changing.remove(digest)
        var summary: ManifestSummary?
        var bytes: [UInt8]?
        if identity.size <= ManifestSummary.sizeLimit {
            do throws(ContentStoreError) {
                guard let file = try catalog.directory(digest.algorithm)?.openFile(digest.hex),
                    try file.status().identity == identity
                else { return hashWhenStable(digest, nil) }
                bytes = try file.readIfJSON(limit: Int(ManifestSummary.sizeLimit))
            } catch {
                log.warnOnce("a blob cannot be read", digest, error: error)
                return stopServing(digest)
            }
            if let bytes {
                let actual = Digest.hash(digest.algorithm, of: bytes)
                guard actual == digest else {
                    markDamaged(digest, identity, "its bytes have the digest \(actual)")
                    return
                }
                summary = ManifestSummary(bytes)
            } else if identity.size == 0, Digest.hash(digest.algorithm, of: []) != digest {
                markDamaged(digest, identity, "it is empty")
                return
            }
        }
        catalog.set(
            digest, identity: identity, mediaType: summary?.mediaType ?? .octetStream,
            references: summary?.references ?? [], bytes: summary == nil || !cachesManifest ? nil : bytes)
        for reference in summary?.references ?? [] {
            if let child = catalog.identity(reference.digest), child.size != reference.size {
                hash(
                    reference.digest,
                    reason: "it has \(child.size) bytes, manifest \(digest) says \(reference.size)")
            }
        }
    }

    // MARK: Hashing

    /// Hashes a blob when its file has stopped changing.
    private func hashWhenStable(_ digest: Digest, _ identity: FileIdentity?) {
        changing.add(digest, identity)
        guard changing.scheduleCheck() else { return }
        queue.asyncAfter(deadline: .now() + Self.stabilityInterval) { [weak self] in self?.checkStability() }
    }

    private func checkStability() {
        for (digest, before) in changing.take() {
            guard let status = try? catalog.directory(digest.algorithm)?.status(digest.hex) else { continue }
            if let before, status.identity == before {
                hash(digest, reason: nil)
            } else {
                hashWhenStable(digest, status.identity)
            }
        }
    }

    /// Hashes a blob, which is not served meanwhile.
    private func hash(_ digest: Digest, reason: String?) {
        stopServing(digest)
        guard hasher.add(digest), let reason else { return }
        log.logger.notice(
            "a blob is verified before it is served", metadata: ["digest": "\(digest)", "reason": "\(reason)"])
    }

    /// Serves or rejects a blob whose file was hashed.
    func finishHashing(_ digest: Digest, _ result: BlobHasher.Result) {
        switch result {
        case .success(let file?) where file.digest == digest: update(digest, .verified(file.identity))
        case .success(let file?): markDamaged(digest, file.identity, "its bytes have the digest \(file.digest)")
        case .success(nil): update(digest, .found)
        case .failure(.closed): return
        case .failure(let error): log.warnOnce("a blob cannot be verified", digest, error: error)
        }
    }
}

/// Files that were seen to change, each with its state at that time.
struct ChangingFiles {
    private var files: [Digest: FileIdentity?] = [:]
    private var isScheduled = false

    /// Adds a file; `identity` is nil when its state is unknown.
    mutating func add(_ digest: Digest, _ identity: FileIdentity?) { files[digest] = .some(identity) }

    mutating func remove(_ digest: Digest) { files.removeValue(forKey: digest) }

    /// Whether the caller must schedule a check, because none is scheduled.
    mutating func scheduleCheck() -> Bool {
        defer { isScheduled = true }
        return !isScheduled
    }

    /// Takes all files for a check.
    mutating func take() -> [Digest: FileIdentity?] {
        defer { self = ChangingFiles() }
        return files
    }
}
