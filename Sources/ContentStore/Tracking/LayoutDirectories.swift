import Dispatch
import OCIDistribution

/// The layout's directories: opened, watched and looked through, and found again when others take their place.
///
/// That a directory cannot be opened, as when there are too many open files, does not say that it is gone: what is known
/// of it is kept then. On the tracker's queue.
extension LayoutTracker {
    // MARK: The root

    /// Looks at everything, and at whether the root directory is still the one that has the name.
    func reconcile() {
        let known = try? root.directory.place
        guard !isRootGone, !isRootInDoubt, let known, (try? Directory.open(path: path).place) == known else {
            return reopenRoot()
        }
        watchIfPossible()
        needsRescan = true
        flush()
    }

    /// Takes what has the root's name now for the root.
    func reopenRoot() {
        guard !isStopped else { return }
        do throws(ContentStoreError) {
            root = try LayoutRoot.open(path: path)
        } catch .notALayout(let path, let reason) {
            return loseRoot(.notALayout(path: path, reason: reason))
        } catch {
            if !isRootInDoubt, !isRootGone {
                log.error(
                    "the layout cannot be opened; what is known of it is kept",
                    metadata: ["path": "\(path)", "error": "\(error)"])
            }
            isRootInDoubt = true
            return retryRoot()
        }
        if isRootGone || isRootInDoubt { log.notice("the layout is back", metadata: ["path": "\(path)"]) }
        isRootGone = false
        isRootInDoubt = false
        stopWatching()
        watchIfPossible()
        indexIdentity = nil
        quarantine.load(from: root)
        rescanOrKeep()
    }

    private func loseRoot(_ reason: ContentStoreError) {
        if !isRootGone {
            log.error("the layout is gone", metadata: ["path": "\(path)", "error": "\(reason)"])
        }
        isRootGone = true
        isRootInDoubt = false
        stopWatching()
        changed = [:]
        catalog.setDirectories([:])
        for digest in catalog.presentDigests { catalog.remove(digest) }
        apply(names: [:])
        indexIdentity = nil
        retryRoot()
    }

    /// The watches of the old directories would go on telling of what happens there, wherever they are.
    private func stopWatching() {
        watcher?.stop()
        watcher = nil
    }

    private func retryRoot() {
        // Many things lead here, the retries themselves among them.
        guard !isRootRetryScheduled else { return }
        isRootRetryScheduled = true
        queue.asyncAfter(deadline: .now() + Self.rootRetry) { [weak self] in
            guard let self else { return }
            isRootRetryScheduled = false
            if isRootGone || isRootInDoubt { reopenRoot() }
        }
    }

    // MARK: Its directories

    /// Opens the directories of blobs and of records anew.
    ///
    /// - Returns: the algorithms whose directory could not be opened though it may be there; it stays as it was.
    @discardableResult
    func openDirectories() -> Set<DigestAlgorithm> {
        var directories = catalog.directories
        var inDoubt: Set<DigestAlgorithm> = []
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
                    logOnce("a directory of blobs cannot be opened", error: error)
                    inDoubt.insert(algorithm)
                }
            }
        } catch {
            logOnce("the directory of blobs cannot be opened", error: error)
            inDoubt = Set(DigestAlgorithm.allCases)
        }
        attempt("the directory of bad blobs' records cannot be opened") { () throws(ContentStoreError) in
            guard let own = try root.privateDirectory() else {
                quarantineDirectory = nil
                return
            }
            watch(own, as: .privateFiles)
            quarantineDirectory = try own.directory(LayoutRoot.quarantineName)
            if let quarantineDirectory { watch(quarantineDirectory, as: .quarantine) }
        }
        catalog.setDirectories(directories)
        return inDoubt
    }

    /// Opens a directory; `nil` when there is none, or something else has its name, which is logged.
    private func subdirectory(_ name: String, of parent: Directory) throws(ContentStoreError) -> Directory? {
        do throws(ContentStoreError) {
            return try parent.directory(name)
        } catch .notALayout(let path, let reason) {
            logOnce("the blobs cannot be served", error: .notALayout(path: path, reason: reason))
            return nil
        }
    }

    private func watch(_ directory: Directory, as role: WatchedDirectory) {
        attempt("changes of a directory are noticed only now and then") { () throws(ContentStoreError) in
            try watcher?.watch(directory, as: role)
        }
    }

    // MARK: Looking at everything

    /// Looks at everything.
    ///
    /// - Throws: ``ContentStoreError``, only with `.initial`: later, what is known is kept.
    func rescan(_ origin: Origin) throws(ContentStoreError) {
        needsRescan = false
        let hadQuarantine = quarantineDirectory != nil
        var inDoubt = openDirectories()
        if !hadQuarantine, quarantineDirectory != nil { quarantine.load(from: root) }
        var seen: Set<Digest> = []
        for algorithm in DigestAlgorithm.allCases {
            guard let directory = catalog.directory(algorithm) else { continue }
            do throws(ContentStoreError) {
                try directory.forEachEntry { name in
                    guard let digest = try? Digest(parsing: "\(algorithm.rawValue):\(name)") else { return }
                    seen.insert(digest)
                    refresh(digest, origin)
                }
            } catch {
                if case .initial = origin { throw error }
                logOnce("the blobs cannot be listed", error: error)
                inDoubt.insert(algorithm)
            }
        }
        // A directory that could not be read says nothing of what is not in it.
        for digest in catalog.presentDigests where !seen.contains(digest) && !inDoubt.contains(digest.algorithm) {
            refresh(digest, origin)
        }
        if case .initial = origin { try reloadNames() } else { reloadNamesOrKeep() }
    }

    func rescanOrKeep() {
        do throws(ContentStoreError) {
            try rescan(.noticed)
        } catch {
            logOnce("the layout cannot be read", error: error)
        }
    }
}
