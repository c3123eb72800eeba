import Logging
import OCIDistribution

/// The directories of a layout: opened, watched, and opened again when others take their place.
///
/// A directory that cannot be opened, for example because too many files are open, is not taken for missing: what is
/// known of its content is kept. Used on the tracker's queue only.
final class LayoutDirectories {
    /// The result of the last attempt to open the root directory.
    enum RootState {
        case open
        /// It may exist, but cannot be opened; the catalog is kept.
        case inaccessible
        /// It does not exist, or is not a layout any more; the catalog is empty.
        case missing
    }

    private(set) var root: LayoutRoot
    private(set) var rootState = RootState.open
    /// The directory of quarantine records; nil when there is none.
    private(set) var records: Directory?
    /// Reports changes; nil when they are found by polling.
    private(set) var watcher: (any LayoutWatcher)?
    /// Makes a watcher; nil when changes are found by polling.
    var makeWatcher: (() throws(ContentStoreError) -> any LayoutWatcher)?

    private let path: String
    private let catalog: LayoutCatalog
    private let log: LayoutLog
    private var isRetryScheduled = false

    init(root: LayoutRoot, path: String, catalog: LayoutCatalog, log: LayoutLog) {
        self.root = root
        self.path = path
        self.catalog = catalog
        self.log = log
    }

    // MARK: The root

    /// Whether the layout's path leads to the root directory that is open.
    var isRootCurrent: Bool {
        guard rootState == .open, let known = try? root.directory.place else { return false }
        return (try? Directory.open(path: path).place) == known
    }

    /// Opens the directory that the layout's path leads to now. Watches of the former directories are removed, since they
    /// would report changes of directories that do not belong to the layout any more.
    func reopenRoot() -> RootState {
        do throws(ContentStoreError) {
            root = try LayoutRoot.open(path: path)
            if rootState != .open { log.logger.notice("the layout is back", metadata: ["path": "\(path)"]) }
            rootState = .open
            stopWatching()
        } catch .notALayout(let path, let reason) {
            if rootState != .missing {
                let error = ContentStoreError.notALayout(path: path, reason: reason)
                log.logger.error("the layout is missing", metadata: ["path": "\(self.path)", "error": "\(error)"])
            }
            rootState = .missing
            stopWatching()
            catalog.setDirectories([:])
        } catch {
            // Once missing, the catalog is empty and stays so until the layout can be read.
            if rootState == .open {
                log.logger.error(
                    "the layout cannot be opened; what is known of it is kept",
                    metadata: ["path": "\(path)", "error": "\(error)"])
                rootState = .inaccessible
            }
        }
        return rootState
    }

    /// Whether the caller must schedule an attempt to open the root again, because none is scheduled.
    func scheduleRetry() -> Bool {
        defer { isRetryScheduled = true }
        return !isRetryScheduled
    }

    /// Ends the wait that ``scheduleRetry()`` began.
    func endRetry() { isRetryScheduled = false }

    // MARK: Watches

    /// Whether changes are reported by a watcher.
    var isWatching: Bool { watcher != nil }

    /// Watches the root directory, unless it is watched or changes are found by polling.
    func startWatching() {
        guard watcher == nil, let makeWatcher else { return }
        log.attempt("changes by other programs are found by polling only") { () throws(ContentStoreError) in
            let watcher = try makeWatcher()
            try watcher.watch(root.directory, as: .root)
            self.watcher = watcher
        }
    }

    func stopWatching() {
        watcher?.stop()
        watcher = nil
    }

    private func watch(_ directory: Directory, as role: WatchedDirectory) {
        log.attempt("changes of a directory are found by rescans only") { () throws(ContentStoreError) in
            try watcher?.watch(directory, as: role)
        }
    }

    // MARK: The directories in the root

    /// Opens the directories of blobs and of quarantine records again.
    ///
    /// - Returns: the algorithms whose directory could not be opened although it may exist; the former one is kept.
    @discardableResult
    func openSubdirectories() -> Set<DigestAlgorithm> {
        var directories = catalog.directories
        var inaccessible: Set<DigestAlgorithm> = []
        do throws(ContentStoreError) {
            let blobs = try subdirectory(LayoutRoot.blobsName, of: root.directory)
            if let blobs { watch(blobs, as: .blobs) }
            for algorithm in DigestAlgorithm.allCases {
                do throws(ContentStoreError) {
                    let directory = try blobs.flatMap { (blobs) throws(ContentStoreError) in
                        try subdirectory(algorithm.rawValue, of: blobs)
                    }
                    if let directory { watch(directory, as: .algorithm(algorithm)) }
                    directories[algorithm] = directory
                } catch {
                    log.warnOnce("a directory of blobs cannot be opened", error: error)
                    inaccessible.insert(algorithm)
                }
            }
        } catch {
            log.warnOnce("the directory of blobs cannot be opened", error: error)
            inaccessible = Set(DigestAlgorithm.allCases)
        }
        log.attempt("the directory of quarantine records cannot be opened") { () throws(ContentStoreError) in
            guard let own = try root.privateDirectory() else {
                records = nil
                return
            }
            watch(own, as: .privateFiles)
            records = try own.directory(LayoutRoot.quarantineName)
            if let records { watch(records, as: .quarantine) }
        }
        catalog.setDirectories(directories)
        return inaccessible
    }

    /// Opens a directory; nil when it does not exist, or when its name belongs to something else, which is logged.
    private func subdirectory(_ name: String, of parent: Directory) throws(ContentStoreError) -> Directory? {
        do throws(ContentStoreError) {
            return try parent.directory(name)
        } catch .notALayout(let path, let reason) {
            log.warnOnce("the blobs cannot be served", error: .notALayout(path: path, reason: reason))
            return nil
        }
    }
}
