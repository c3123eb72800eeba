import Dispatch
import Logging
import NIOConcurrencyHelpers
import OCIDistribution

/// Keeps the catalog true to the files of a layout: at the start, when others change them, and when this process does.
///
/// Everything that changes the catalog's content runs on one queue and takes the state of the disk at that time, so the
/// order of causes does not matter. Long reading (hashing) is done elsewhere.
final class LayoutTracker: @unchecked Sendable {
    /// How a file came to notice, which tells how far it is to be trusted before it was hashed.
    enum Origin: Sendable {
        /// It was there when the store was opened.
        case initial
        /// It got its name by a rename, as everyone does who writes a layout: it is complete.
        case renamed
        /// It was closed after having been written under its name: it is hashed before it is served.
        case written
        /// It is there: it is hashed before it is served, when it has stopped changing.
        case noticed
        /// This process hashed it in this state; in another state nothing is known of it.
        case verified(FileIdentity)
        /// This process hashed it in this state and gave it its name; in another state it is another writer's, and as
        /// complete as ours.
        case published(FileIdentity)
    }

    /// How long changes are gathered before they are looked at.
    private static let debounce = DispatchTimeInterval.milliseconds(20)
    /// How long a file must not change before it is hashed.
    static let settling = DispatchTimeInterval.seconds(1)
    /// How long until a root directory that is gone or cannot be opened is looked for again.
    static let rootRetry = DispatchTimeInterval.seconds(1)
    /// More changed blobs than this at once make it look at everything.
    private static let changeLimit = 8192
    /// How many things that are logged once are remembered.
    private static let logMemoryLimit = 10_000

    let path: String
    let options: OnDiskContentStore.Options
    let log: Logger
    let catalog: LayoutCatalog
    let queue: DispatchQueue
    private let stopped = NIOLockedValueBox(false)

    // From here on: used on the queue only.
    var root: LayoutRoot
    var isRootGone = false
    /// Whether the root directory could not be opened the last time, for all that is known of it.
    var isRootInDoubt = false
    var isRootRetryScheduled = false
    var quarantine = Quarantine()
    var quarantineDirectory: Directory?
    let checker: BlobChecker
    var unsettled: [Digest: FileIdentity?] = [:]
    var isSettling = false
    var changed: [Digest: Origin] = [:]
    var needsRescan = false
    private var needsNames = false
    private var isFlushing = false
    private var names: [Reference: Descriptor] = [:]
    var indexIdentity: FileIdentity?
    private var logged: Set<String> = []
    var watcher: (any LayoutWatcher)?
    private var timer: (any DispatchSourceTimer)?

    init(path: String, root: LayoutRoot, options: OnDiskContentStore.Options) {
        self.path = path
        self.root = root
        self.options = options
        log = options.logger
        catalog = LayoutCatalog(
            manifestCacheCapacity: options.manifestCacheCapacity, eventBufferLimit: options.eventBufferLimit)
        queue = DispatchQueue(label: "content-store.layout")
        checker = BlobChecker(queue: queue, stopped: stopped)
        checker.directory = { [catalog] digest in catalog.directory(digest.algorithm) }
        checker.report = { [weak self] digest, result in self?.checked(digest, result) }
    }

    deinit {
        timer?.cancel()
        watcher?.stop()
    }

    // MARK: From other threads

    /// Runs work on the queue and waits for it without blocking.
    func perform<Value: Sendable>(
        _ work: @escaping @Sendable (LayoutTracker) throws -> Value
    ) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            queue.async { continuation.resume(with: Result { try work(self) }) }
        }
    }

    /// The layout's root, to write to.
    ///
    /// - Throws: ``ContentStoreError/closed``; ``ContentStoreError/unavailable(_:)`` when it is gone.
    func writableRoot() async throws -> LayoutRoot {
        guard !isStopped else { throw ContentStoreError.closed }
        return try await perform { tracker in
            guard !tracker.isRootGone else {
                throw ContentStoreError.unavailable("the layout \(tracker.path) is gone")
            }
            return tracker.root
        }
    }

    /// Looks at a blob that was found not to be as it was, without waiting for the result.
    func noteChange(_ digest: Digest) {
        queue.async { [weak self] in self?.refresh(digest, .noticed) }
    }

    var isStopped: Bool { stopped.withLockedValue { $0 } }

    /// Ends everything; the catalog stays as it is.
    func stop() {
        stopped.withLockedValue { $0 = true }
        catalog.hub.finish()
        queue.async { [self] in
            timer?.cancel()
            watcher?.stop()
            timer = nil
            watcher = nil
        }
    }

    // MARK: Start

    /// Looks at everything for the first time.
    ///
    /// - Throws: ``ContentStoreError`` when the layout cannot be read.
    func start() throws(ContentStoreError) {
        watchIfPossible()
        quarantine.load(from: root)
        try rescan(.initial)
        guard options.watchesChanges else { return }
        let timer = DispatchSource.makeTimerSource(queue: queue)
        timer.setEventHandler { [weak self] in self?.reconcile() }
        self.timer = timer
        schedule(timer)
        timer.activate()
    }

    /// Watches the root directory, if that is wanted and not so yet; where it cannot be, everything is polled.
    func watchIfPossible() {
        guard options.watchesChanges, !options.prefersPolling, watcher == nil else { return }
        do throws(ContentStoreError) {
            try startWatching()
        } catch {
            logOnce("changes by other programs are noticed by polling only", error: error)
        }
        if let timer { schedule(timer) }
    }

    private func schedule(_ timer: any DispatchSourceTimer) {
        let interval = watcher == nil ? options.pollInterval : options.rescanInterval
        timer.schedule(deadline: .now() + interval, repeating: interval, leeway: .milliseconds(100))
    }

    private func startWatching() throws(ContentStoreError) {
        #if canImport(Glibc) || canImport(Musl)
            let watcher = try InotifyWatcher(queue: queue) { [weak self] changes in self?.handle(changes) }
            try watcher.watch(root.directory, as: .root)
            self.watcher = watcher
        #else
            throw .unavailable("this platform has no inotify")
        #endif
    }

    // MARK: Changes

    private func handle(_ changes: [LayoutChange]) {
        for change in changes {
            switch change {
            case .index: needsNames = true
            case .structure, .overflow: needsRescan = true
            case .blobRenamed(let digest): changed[digest] = .renamed
            case .blobWritten(let digest): changed[digest] = .written
            case .blobGone(let digest): changed[digest] = .noticed
            case .blobChanging(let digest):
                // Not a moment longer: what is being overwritten is not what its digest says.
                forget(digest)
                changed[digest] = .noticed
            case .quarantine(let digest):
                if let directory = quarantineDirectory { quarantine.reload(digest, from: directory) }
                changed[digest] = .noticed
            case .rootGone:
                reopenRoot()
                return
            }
        }
        if changed.count > Self.changeLimit {
            changed = [:]
            needsRescan = true
        }
        guard !isFlushing else { return }
        isFlushing = true
        queue.asyncAfter(deadline: .now() + Self.debounce) { [weak self] in self?.flush() }
    }

    func flush() {
        isFlushing = false
        guard !isRootGone else { return }
        let changed = self.changed
        self.changed = [:]
        for (digest, origin) in changed { refresh(digest, origin) }
        if needsRescan {
            rescanOrKeep()
        } else if needsNames {
            reloadNamesOrKeep()
        }
    }

    // MARK: Names

    /// Reads `index.json`, unless it is as it was.
    ///
    /// - Throws: ``ContentStoreError``; the names stay as they were then.
    func reloadNames() throws(ContentStoreError) {
        needsNames = false
        if let indexIdentity, (try? root.directory.status(LayoutIndex.fileName))?.identity == indexIdentity { return }
        let (bytes, identity) = try root.readIndex()
        let index = try LayoutIndex(
            parsing: bytes, path: "\(path)/\(LayoutIndex.fileName)", bareTags: options.bareTags)
        let (entries, problems) = index.entries()
        for problem in problems.prefix(20) { logOnce("index.json: \(problem)") }
        var new: [Reference: Descriptor] = [:]
        for entry in entries {
            if let reference = entry.reference { new[reference] = entry.descriptor }
        }
        apply(names: new)
        indexIdentity = identity
    }

    func reloadNamesOrKeep() {
        do throws(ContentStoreError) {
            try reloadNames()
        } catch {
            logOnce("index.json cannot be read; the names known before are kept", error: error)
        }
    }

    func apply(names new: [Reference: Descriptor]) {
        for (reference, target) in new where names[reference] != target {
            catalog.setImage(StoredImage(reference: reference, target: target))
        }
        for reference in names.keys where new[reference] == nil { catalog.removeImage(reference) }
        names = new
    }

    // MARK: Messages

    /// Logs a message that would otherwise repeat with every look at the layout.
    func logOnce(_ message: String, _ digest: Digest? = nil, error: ContentStoreError? = nil) {
        if logged.count >= Self.logMemoryLimit { logged = [] }
        guard logged.insert("\(message) \(digest?.description ?? "") \(error?.description ?? "")").inserted else {
            return
        }
        var metadata: Logger.Metadata = ["path": "\(path)"]
        if let digest { metadata["digest"] = "\(digest)" }
        if let error { metadata["error"] = "\(error)" }
        log.warning("\(message)", metadata: metadata)
    }

    func attempt(_ message: String, _ body: () throws(ContentStoreError) -> Void) {
        do throws(ContentStoreError) { try body() } catch { logOnce(message, error: error) }
    }
}
