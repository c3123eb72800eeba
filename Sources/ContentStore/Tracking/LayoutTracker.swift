import Dispatch
import Logging
import NIOConcurrencyHelpers
import OCIDistribution

/// Keeps the catalog consistent with the files of a layout: when the store opens, after changes by other processes, and
/// after changes by this one.
///
/// ```
/// inotify ──► PendingChanges ──► BlobTracker ──► LayoutCatalog ──► subscribers
/// timer ────► rescan             LayoutIndex ──►
///             LayoutDirectories: the root, the directories in it, the watches on them
/// ```
///
/// All changes of the catalog's content run on one queue and use the state of the disk at that time, so the order of
/// their causes does not matter. Long reads (hashing) run on other threads.
final class LayoutTracker: @unchecked Sendable {
    /// How long changes are collected before they are processed.
    private static let debounce = DispatchTimeInterval.milliseconds(20)
    /// The interval at which a root directory that is missing or cannot be opened is tried again.
    private static let rootRetryInterval = DispatchTimeInterval.seconds(1)

    let catalog: LayoutCatalog
    private let path: String
    private let options: OnDiskContentStore.Options
    private let log: LayoutLog
    private let queue: DispatchQueue
    private let stopped = NIOLockedValueBox(false)

    // Used on the queue only.
    let directories: LayoutDirectories
    let blobs: BlobTracker
    /// The state of the `index.json` that the names were read from.
    private var indexIdentity: FileIdentity?
    private var pending = PendingChanges()
    private var timer: (any DispatchSourceTimer)?

    init(path: String, root: LayoutRoot, options: OnDiskContentStore.Options) {
        self.path = path
        self.options = options
        log = LayoutLog(logger: options.logger, path: path)
        catalog = LayoutCatalog(
            manifestCacheCapacity: options.manifestCacheCapacity, eventBufferLimit: options.eventBufferLimit)
        queue = DispatchQueue(label: "content-store.layout")
        directories = LayoutDirectories(root: root, path: path, catalog: catalog, log: log)
        blobs = BlobTracker(catalog: catalog, directories: directories, queue: queue, stopped: stopped, log: log)
    }

    deinit {
        timer?.cancel()
        directories.stopWatching()
    }

    // MARK: From other threads

    /// Stops tracking; the catalog stays as it is.
    func stop() {
        stopped.withLockedValue { $0 = true }
        catalog.hub.finish()
        queue.async { [self] in
            timer?.cancel()
            timer = nil
            directories.stopWatching()
        }
    }

    /// The layout's root directory, for writing.
    ///
    /// - Throws: ``ContentStoreError/closed``; ``ContentStoreError/unavailable(_:)`` when it is missing.
    func writableRoot() async throws -> LayoutRoot {
        guard !isStopped else { throw ContentStoreError.closed }
        return try await perform { tracker in
            guard tracker.directories.rootState != .missing else {
                throw ContentStoreError.unavailable("the layout \(tracker.path) is missing")
            }
            return tracker.directories.root
        }
    }

    /// Compares the catalog with a blob's file, and returns what is served then.
    @discardableResult
    func update(_ digest: Digest, _ observation: BlobObservation) async throws -> ContentInfo? {
        try await perform { tracker in
            tracker.blobs.update(digest, observation)
            return tracker.catalog.info(digest)
        }
    }

    /// Compares the catalog with a blob's file, without waiting for the result.
    func scheduleUpdate(_ digest: Digest) {
        queue.async { [weak self] in self?.blobs.update(digest, .found) }
    }

    /// Stops serving a file whose bytes do not have its digest.
    ///
    /// - Returns: `false` when only this process remembers it.
    func markDamaged(_ digest: Digest, _ identity: FileIdentity, reason: String) async throws -> Bool {
        try await perform { $0.blobs.markDamaged(digest, identity, reason) }
    }

    /// Stops serving a file whose bytes do not have its digest, without waiting.
    func scheduleMarkDamaged(_ digest: Digest, _ identity: FileIdentity, reason: String) {
        queue.async { [weak self] in self?.blobs.markDamaged(digest, identity, reason) }
    }

    /// Serves a file whose bytes were found to have its digest.
    func markValid(_ digest: Digest, _ identity: FileIdentity) async throws {
        try await perform { $0.blobs.markValid(digest, identity) }
    }

    /// Reads `index.json`, unless it is unchanged.
    ///
    /// - Throws: ``ContentStoreError``; the names stay as they were then.
    func reloadNames() async throws {
        try await perform { try $0.readNames() }
    }

    /// Looks through the whole layout for the first time, and begins to track changes.
    ///
    /// - Throws: ``ContentStoreError`` when the layout cannot be read.
    func start() async throws {
        directories.makeWatcher = watcherFactory()
        try await perform { try $0.begin() }
    }

    /// Runs work on the queue and waits for it without blocking.
    func perform<Value: Sendable>(
        _ work: @escaping @Sendable (LayoutTracker) throws -> Value
    ) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            queue.async { continuation.resume(with: Result { try work(self) }) }
        }
    }

    private var isStopped: Bool { stopped.withLockedValue { $0 } }

    // MARK: Start

    private func begin() throws(ContentStoreError) {
        startWatching()
        blobs.loadRecords()
        try blobs.rescan(.initialScan)
        try readNames()
        guard options.watchesChanges else { return }
        let timer = DispatchSource.makeTimerSource(queue: queue)
        timer.setEventHandler { [weak self] in self?.rescan() }
        self.timer = timer
        schedule(timer)
        timer.activate()
    }

    /// Makes a watcher whose changes go to ``enqueue(_:)``; nil where changes are found by polling.
    private func watcherFactory() -> (() throws(ContentStoreError) -> any LayoutWatcher)? {
        guard options.watchesChanges, !options.prefersPolling else { return nil }
        return { [weak self, queue] () throws(ContentStoreError) in
            #if canImport(Glibc) || canImport(Musl)
                return try InotifyWatcher(queue: queue) { [weak self] changes in self?.enqueue(changes) }
            #else
                throw .unavailable("this platform has no inotify")
            #endif
        }
    }

    /// Watches the root directory unless it is watched; without a watcher, the layout is polled.
    private func startWatching() {
        directories.startWatching()
        if let timer { schedule(timer) }
    }

    private func schedule(_ timer: any DispatchSourceTimer) {
        let interval = directories.isWatching ? options.rescanInterval : options.pollInterval
        timer.schedule(deadline: .now() + interval, repeating: interval, leeway: .milliseconds(100))
    }

    // MARK: Changes

    private func enqueue(_ changes: [LayoutChange]) {
        for change in changes {
            switch change {
            case .rootGone: return reopenRoot()
            // Not served for a moment longer: bytes that are being overwritten do not have the digest.
            case .blobChanging(let digest): blobs.stopServing(digest)
            case .quarantine(let digest): blobs.reloadRecord(digest)
            default: break
            }
            pending.add(change)
        }
        guard pending.scheduleProcessing() else { return }
        queue.asyncAfter(deadline: .now() + Self.debounce) { [weak self] in self?.processChanges() }
    }

    private func processChanges() {
        guard directories.rootState != .missing else { return pending.reset() }
        let work = pending.take()
        for (digest, observation) in work.blobs { blobs.update(digest, observation) }
        if work.needsRescan { rescanContents() } else if work.needsNames { reloadNamesOrKeep() }
    }

    /// Compares everything, and checks whether the layout's path still leads to the same root directory.
    func rescan() {
        guard directories.isRootCurrent else { return reopenRoot() }
        startWatching()
        requestRescan()
    }

    /// Processes pending changes and a rescan of the root directory that is open.
    func requestRescan() {
        pending.requestRescan()
        processChanges()
    }

    /// Compares the catalog with the blobs and names in the root directory.
    func rescanContents() {
        log.attempt("the layout cannot be read") { () throws(ContentStoreError) in try blobs.rescan(.found) }
        reloadNamesOrKeep()
    }

    /// Adopts the directory that the layout's path leads to now.
    private func reopenRoot() {
        guard !isStopped else { return }
        switch directories.reopenRoot() {
        case .open:
            startWatching()
            indexIdentity = nil
            blobs.loadRecords()
            requestRescan()
        case .inaccessible:
            scheduleRootRetry()
        case .missing:
            pending.reset()
            for digest in catalog.presentDigests { catalog.remove(digest) }
            catalog.setImages([:])
            indexIdentity = nil
            scheduleRootRetry()
        }
    }

    private func scheduleRootRetry() {
        guard directories.scheduleRetry() else { return }
        queue.asyncAfter(deadline: .now() + Self.rootRetryInterval) { [weak self] in
            guard let self else { return }
            directories.endRetry()
            if directories.rootState != .open { reopenRoot() }
        }
    }

    // MARK: Names

    private func readNames() throws(ContentStoreError) {
        let root = directories.root
        if let indexIdentity, (try? root.directory.status(LayoutIndex.fileName))?.identity == indexIdentity { return }
        let index = LayoutIndex(path: "\(path)/\(LayoutIndex.fileName)", bareTags: options.bareTags)
        let (names, identity) = try root.readIndex { (source) throws(ContentStoreError) in
            try index.readNames(source)
        }
        for problem in names.problems { log.warnOnce("index.json: \(problem)") }
        catalog.setImages(names.targets)
        indexIdentity = identity
    }

    private func reloadNamesOrKeep() {
        log.attempt("index.json cannot be read; the names known before are kept") { () throws(ContentStoreError) in
            try readNames()
        }
    }
}

/// Changes that were reported and not processed yet; those of one blob coalesce.
struct PendingChanges {
    /// More changed blobs than this lead to a rescan of everything.
    private static let blobLimit = 8192

    /// What is to be done.
    struct Work {
        var blobs: [Digest: BlobObservation] = [:]
        var needsRescan = false
        var needsNames = false
    }

    private var work = Work()
    private var isScheduled = false

    mutating func add(_ change: LayoutChange) {
        switch change {
        case .index: work.needsNames = true
        case .structure, .overflow, .rootGone: work.needsRescan = true
        case .blobRenamed(let digest): work.blobs[digest] = .renamed
        case .blobWritten(let digest): work.blobs[digest] = .written
        case .blobGone(let digest), .blobChanging(let digest), .quarantine(let digest): work.blobs[digest] = .found
        }
        guard work.blobs.count > Self.blobLimit else { return }
        work.blobs = [:]
        work.needsRescan = true
    }

    mutating func requestRescan() { work.needsRescan = true }

    /// Whether the caller must schedule the processing, because no processing is scheduled.
    mutating func scheduleProcessing() -> Bool {
        defer { isScheduled = true }
        return !isScheduled
    }

    /// Takes all work; later changes need another processing.
    mutating func take() -> Work {
        defer { reset() }
        return work
    }

    /// Drops all work, as when the root directory is missing.
    mutating func reset() { self = PendingChanges() }
}

/// Logs each problem of a layout once, although every rescan meets it again.
final class LayoutLog {
    /// Most messages that are remembered; beyond it all are forgotten, and may be logged once more.
    private static let memoryLimit = 10_000

    let logger: Logger
    private let path: String
    private var logged: Set<String> = []

    init(logger: Logger, path: String) {
        self.logger = logger
        self.path = path
    }

    func warnOnce(_ message: String, _ digest: Digest? = nil, error: ContentStoreError? = nil) {
        if logged.count >= Self.memoryLimit { logged = [] }
        guard logged.insert("\(message) \(digest?.description ?? "") \(error?.description ?? "")").inserted else {
            return
        }
        var metadata: Logger.Metadata = ["path": "\(path)"]
        if let digest { metadata["digest"] = "\(digest)" }
        if let error { metadata["error"] = "\(error)" }
        logger.warning("\(message)", metadata: metadata)
    }

    /// Runs `body`; logs its error once.
    func attempt(_ message: String, _ body: () throws(ContentStoreError) -> Void) {
        do throws(ContentStoreError) { try body() } catch { warnOnce(message, error: error) }
    }
}
