import Dispatch
import Logging
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import ServiceLifecycle

/// A store on disk: a directory in the OCI image layout (OCI image specification, image-layout.md), which `skopeo`,
/// `umoci` and others fill and read as well.
///
/// Names come from the annotations `io.containerd.image.name` and `org.opencontainers.image.ref.name` in `index.json`.
/// Names that are only a tag are skipped, unless ``Options/bareTags`` says where they belong.
///
/// **Verification.** A manifest, and any other JSON of up to 4 MiB, is served only after its bytes were hashed. Other blobs
/// that existed when the store was opened, or got their name by a rename, are served as they are, unless a manifest gives
/// another size: then, and when a blob was written in place, it is hashed first. ``verify(_:progress:)`` hashes
/// everything. A damaged blob is not served again, by any process that uses this library, until its file changes and
/// hashes to its digest.
///
/// **Changes by other programs** are found with inotify(7), and by polling where there is none.
///
/// **Lifecycle.** ``open(path:options:)`` starts the store. ``run()`` keeps it until the service group shuts down
/// gracefully, and ``shutdown()`` may be called at any time and any number of times. A store that was shut down does not
/// start again; open a new one.
///
/// The layout's `.spegel` directory holds files being written, records of damaged blobs, and a lock. All reading, hashing
/// and writing takes place on four threads shared by all stores of the process, never on the caller's.
public final class OnDiskContentStore: WritableContentStore, Service {
    /// How a layout is opened.
    public struct Options: Sendable {
        /// Whether a missing or empty directory is made a layout. A directory with other files in it stays an error.
        public var createsIfMissing = false
        /// Whether changes by other programs are found while the store is open.
        public var watchesChanges = true
        /// Whether changes are found by polling even where there is inotify. Needed on a network file system, where inotify
        /// does not report changes by other machines.
        public var prefersPolling = false
        /// The repository of names that are only a tag, as `skopeo copy … oci:DIR:latest` writes them; `nil` to skip them.
        public var bareTags: ContentSource?
        /// Most writers at the same time.
        public var writerLimit = 64
        /// How many bytes of manifests are kept in memory. Those over 256 KiB are not.
        public var manifestCacheCapacity = 8 << 20
        /// How many events are kept for a slow subscriber before it gets a new snapshot instead.
        public var eventBufferLimit = 4096
        /// The interval of rescans where inotify reports changes.
        public var rescanInterval = DispatchTimeInterval.seconds(300)
        /// The interval of rescans where inotify is not used.
        public var pollInterval = DispatchTimeInterval.seconds(3)
        /// How long a change of `index.json` waits for the lock that another process holds.
        public var lockTimeout = Duration.seconds(30)
        /// How long a change of `index.json` waits for a program that is writing it in place.
        package var indexWriteTimeout = Duration.seconds(1)
        /// Receives the store's messages.
        public var logger = Logger(label: "content-store")

        /// The defaults.
        public init() {}
    }

    /// The layout's path, as it was given.
    public let path: String
    private let options: Options
    let tracker: LayoutTracker
    private let lifecycle: Lifecycle
    private let writers = NIOLockedValueBox(0)
    private let arriving = NIOLockedValueBox(ArrivingWriters<OnDiskContentWriter>())
    private let indexEdits = AsyncMutex()

    private var catalog: LayoutCatalog { tracker.catalog }

    private init(path: String, options: Options, root: LayoutRoot) {
        self.path = path
        self.options = options
        tracker = LayoutTracker(path: path, root: root, options: options)
        lifecycle = Lifecycle(name: "store \(path)")
    }

    deinit { tracker.stop() }

    /// Opens a layout, reads what it contains, and starts to track changes. Files of interrupted writers are removed.
    ///
    /// - Parameters:
    ///   - path: the layout's directory.
    ///   - options: how to open it.
    /// - Throws: ``ContentStoreError/notALayout(path:reason:)``,
    ///   ``ContentStoreError/unsupportedLayoutVersion(path:version:)``,
    ///   ``ContentStoreError/malformedIndex(path:reason:)``, ``ContentStoreError/permissionDenied(_:)``, or another
    ///   ``ContentStoreError``.
    public static func open(path: String, options: Options = Options()) async throws -> OnDiskContentStore {
        let root = try await FileWork.run {
            let root =
                options.createsIfMissing ? try LayoutRoot.openOrCreate(path: path) : try LayoutRoot.open(path: path)
            do throws(ContentStoreError) {
                if let ingest = try root.privateDirectory()?.directory(LayoutRoot.ingestName) {
                    let count = try IngestFile.removeAbandoned(in: ingest)
                    if count > 0 {
                        options.logger.notice(
                            "interrupted writes were removed", metadata: ["path": "\(path)", "count": "\(count)"])
                    }
                }
            } catch {
                // A layout that cannot be written is served nevertheless.
                options.logger.debug(
                    "the search for interrupted writes failed", metadata: ["path": "\(path)", "error": "\(error)"])
            }
            return root
        }
        let store = OnDiskContentStore(path: path, options: options, root: root)
        try await store.lifecycle.start { try await store.tracker.start() }
        return store
    }

    // MARK: Lifecycle

    /// Waits until the service group shuts down gracefully, the task is cancelled or the store is shut down; then shuts the
    /// store down.
    ///
    /// - Throws: `LifecycleError` when the store was shut down before.
    public func run() async throws {
        try await lifecycle.run(start: { try await lifecycle.start {} }, shutdown: { _ in await shutdown() })
    }

    /// Stops tracking changes and ends all subscriptions; writing fails from now on. Reading still works.
    public func shutdown() async {
        await lifecycle.end { [tracker] in tracker.stop() }
    }

    // MARK: Reading

    /// Finds what a reference names.
    public func resolve(_ reference: Reference) async throws -> Descriptor? { catalog.resolve(reference) }

    /// Describes content.
    public func info(_ digest: Digest) async throws -> ContentInfo? { catalog.info(digest) }

    /// Opens content.
    ///
    /// - Throws: ``ContentStoreError`` when the file cannot be opened although it exists.
    public func open(_ digest: Digest) async throws -> OpenContent? {
        for _ in 0..<3 {
            switch openImmediately(digest) {
            case .found(let content): return content
            case .absent: return nil
            case .unknown:
                // The file has changed or cannot be opened: compare the catalog with it, then answer.
                try await tracker.update(digest, .found)
                guard let location = catalog.location(digest) else { return nil }
                _ = try await FileWork.run { try location.directory.openFile(digest.hex)?.status() }
            }
        }
        throw ContentStoreError.unavailable("\(digest) changes all the time in \(path)")
    }

    /// Lists the images, sorted by name.
    public func images() async throws -> [StoredImage] { catalog.images }

    /// Lists an image's content.
    public func contents(of image: StoredImage) async throws -> [ContentInfo] {
        catalog.reachable(from: image.target.digest)
    }

    /// Subscribes to changes, by this process and by others.
    public func events() -> ContentEvents { catalog.hub.subscribe() }

    /// Finds what a reference names; never ``ImmediateAnswer/unknown``.
    public func resolveImmediately(_ reference: Reference) -> ImmediateAnswer<Descriptor> {
        ImmediateAnswer(known: catalog.resolve(reference))
    }

    /// Describes content; never ``ImmediateAnswer/unknown``.
    public func infoImmediately(_ digest: Digest) -> ImmediateAnswer<ContentInfo> {
        ImmediateAnswer(known: catalog.info(digest))
    }

    /// Opens content: a small manifest from memory, anything else as a file.
    ///
    /// ``ImmediateAnswer/unknown`` when the file has changed since it was last examined.
    public func openImmediately(_ digest: Digest) -> ImmediateAnswer<OpenContent> {
        let location: LayoutCatalog.Location
        switch catalog.source(digest) {
        case nil: return .absent
        case .memory(let manifest): return .found(manifest)
        case .file(let file, let shouldWarm):
            location = file
            if shouldWarm { warm(file) }
        }
        do throws(ContentStoreError) {
            guard let file = try location.directory.openFile(digest.hex) else {
                tracker.scheduleUpdate(digest)
                return .absent
            }
            guard try file.status().identity == location.identity else { return .unknown }
            let content = ContentFile(takingOwnershipOf: file.takeDescriptor(), size: location.info.size)
            return .found(OpenContent(info: location.info, body: .file(content)))
        } catch {
            return .unknown
        }
    }

    /// Reads a manifest into memory, for later requests.
    private func warm(_ location: LayoutCatalog.Location) {
        let digest = location.info.digest
        let catalog = catalog
        FileWork.submit { [tracker] in
            var bytes = (try? location.directory.openFile(digest.hex)?.readAll(limit: ManifestCache.entryLimit)) ?? nil
            if let read = bytes, Digest.hash(digest.algorithm, of: read) != digest {
                bytes = nil
                tracker.scheduleMarkDamaged(digest, location.identity, reason: "its bytes have another digest")
            }
            catalog.warmed(digest, identity: location.identity, bytes: bytes)
        }
    }

    // MARK: Writing

    /// Begins to write content.
    ///
    /// - Throws: ``ContentStoreError``; see ``WritableContentStore/beginWrite(_:size:)``.
    public func beginWrite(_ digest: Digest, size: Int64?) async throws -> any ContentWriter {
        let permit = try WriterPermit.take(from: writers, limit: max(1, options.writerLimit))
        let root = try await tracker.writableRoot()
        let file = try await FileWork.run { try IngestFile.create(in: root.makeIngestDirectory()) }
        let writer = OnDiskContentWriter(
            tracker: tracker, permit: permit, digest: digest, size: size, file: file
        ) { [arriving] writer in
            arriving.withLockedValue { $0.remove(writer, of: digest) }
        }
        arriving.withLockedValue { $0.add(writer, of: digest) }
        return writer
    }

    /// Opens content that a writer of this store is adding. What other processes write to the layout is not seen before it is
    /// complete.
    ///
    /// - Throws: ``ContentStoreError`` when the file cannot be opened.
    public func openArriving(_ digest: Digest) async throws -> ArrivingContent? {
        guard catalog.info(digest) == nil else { return nil }
        for writer in arriving.withLockedValue({ $0.all(of: digest) }) {
            if let content = try await FileWork.run({ try writer.openArriving() }) { return content }
        }
        return nil
    }

    /// Makes a reference name content that is present, in `index.json`.
    ///
    /// - Throws: ``ContentStoreError/absent(_:)``, ``ContentStoreError/untaggable(_:)``,
    ///   ``ContentStoreError/unavailable(_:)`` when another process holds the lock, or why `index.json` cannot
    ///   be read or written.
    public func tag(_ target: Descriptor, as reference: Reference) async throws {
        guard reference.tag != nil || reference.digest != nil else { throw ContentStoreError.untaggable(reference) }
        guard let info = catalog.info(target.digest) else { throw ContentStoreError.absent(target.digest) }
        var target = target
        target.size = info.size
        if info.mediaType.isManifest { target.mediaType = info.mediaType }
        try await editIndex(.set(reference, target))
    }

    /// Removes a name from `index.json`.
    ///
    /// - Throws: as ``tag(_:as:)``.
    public func untag(_ reference: Reference) async throws {
        try await editIndex(.remove(reference))
    }

    /// Removes the file of a digest.
    ///
    /// - Throws: ``ContentStoreError`` when it cannot be removed.
    public func remove(_ digest: Digest) async throws {
        _ = try await tracker.writableRoot()
        guard let directory = catalog.directory(digest.algorithm) else { return }
        try await FileWork.run {
            guard try directory.status(digest.hex) != nil else { return }
            try directory.unlink(digest.hex)
            try directory.sync()
        }
        try await tracker.update(digest, .found)
    }

    private func editIndex(_ edit: LayoutIndex.Edit) async throws {
        try await indexEdits.withLock { try await self.editIndexNow(edit) }
    }

    private func editIndexNow(_ edit: LayoutIndex.Edit) async throws {
        let root = try await tracker.writableRoot()
        let started = ContinuousClock.now
        while true {
            do {
                let isDone = try await FileWork.run { [options] in
                    try root.editIndex(bareTags: options.bareTags, edit)
                }
                if isDone { break }
                guard ContinuousClock.now - started < options.lockTimeout else {
                    throw ContentStoreError.unavailable("another process holds the lock of \(path)")
                }
            } catch ContentStoreError.malformedIndex where ContinuousClock.now - started < options.indexWriteTimeout {
                // Another program may be writing it in place.
            }
            try await Task.sleep(for: .milliseconds(10))
        }
        try await tracker.reloadNames()
    }
}
