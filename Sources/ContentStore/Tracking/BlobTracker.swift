import Dispatch
import OCIDistribution

/// What is so of one blob: whether its file is served, waits until it stops changing, is hashed first, or is bad.
///
/// On the tracker's queue, like everything that changes the catalog.
extension LayoutTracker {
    /// Looks at the file of a digest and makes the catalog say what is so.
    func refresh(_ digest: Digest, _ origin: Origin) {
        var origin = origin
        if catalog.directory(digest.algorithm) == nil, !isRootGone,
            openDirectories().contains(digest.algorithm)
        {
            // Whether it is there cannot be told.
            return
        }
        let status: FileStatus?
        do throws(ContentStoreError) {
            status = try catalog.directory(digest.algorithm)?.status(digest.hex)
        } catch {
            logOnce("a blob cannot be examined", digest, error: error)
            return
        }
        guard let status else { return forget(digest) }
        guard status.isRegular else {
            logOnce("a blob is not served, as it is not a regular file; links are not followed", digest)
            return forget(digest)
        }
        let identity = status.identity
        switch origin {
        case .verified(let hashed), .published(let hashed):
            if hashed == identity {
                quarantine.remove(digest, root: root)
                return admit(digest, identity)
            }
            if case .published = origin { origin = .renamed } else { origin = .noticed }
        case .initial, .renamed, .written, .noticed: break
        }
        if let bad = quarantine[digest] {
            forget(digest)
            if bad != identity { suspect(digest, "it was found to be bad before") }
            return
        }
        let known = catalog.identity(digest)
        if known == identity { return }
        switch origin {
        case .initial, .renamed, .verified, .published:
            if let expected = catalog.expectedSize(digest), expected != identity.size {
                suspect(digest, "it has \(identity.size) bytes, a manifest says \(expected)")
            } else if case .initial = origin {
                // Nobody has asked for it; whoever does brings it into memory.
                admit(digest, identity, keepsManifest: false)
            } else {
                admit(digest, identity)
            }
        case .written: suspect(digest, nil)
        case .noticed:
            if known != nil { forget(digest) }
            settle(digest, identity)
        }
    }

    func forget(_ digest: Digest) {
        unsettled[digest] = nil
        catalog.remove(digest)
    }

    /// Adds a blob to what is served. JSON is read and checked first, as it may be a manifest.
    private func admit(_ digest: Digest, _ identity: FileIdentity, keepsManifest: Bool = true) {
        unsettled[digest] = nil
        var summary: ManifestSummary?
        var bytes: [UInt8]?
        if identity.size <= ManifestSummary.sizeLimit {
            do throws(ContentStoreError) {
                guard let file = try catalog.directory(digest.algorithm)?.openFile(digest.hex),
                    try file.status().identity == identity
                else { return settle(digest, nil) }
                bytes = try file.readIfJSON(limit: Int(ManifestSummary.sizeLimit))
            } catch {
                logOnce("a blob cannot be read", digest, error: error)
                return forget(digest)
            }
            if let bytes {
                let actual = Digest.hash(digest.algorithm, of: bytes)
                guard actual == digest else {
                    reject(digest, identity, "its bytes have the digest \(actual)")
                    return
                }
                summary = ManifestSummary(bytes)
            } else if identity.size == 0, Digest.hash(digest.algorithm, of: []) != digest {
                reject(digest, identity, "it is empty")
                return
            }
        }
        catalog.set(
            digest, identity: identity, mediaType: summary?.mediaType ?? .octetStream,
            references: summary?.references ?? [], bytes: summary == nil || !keepsManifest ? nil : bytes)
        for reference in summary?.references ?? [] {
            if let child = catalog.identity(reference.digest), child.size != reference.size {
                suspect(reference.digest, "it has \(child.size) bytes, manifest \(digest) says \(reference.size)")
            }
        }
    }

    /// Waits until a file has stopped changing, then has it hashed.
    private func settle(_ digest: Digest, _ identity: FileIdentity?) {
        unsettled[digest] = .some(identity)
        guard !isSettling else { return }
        isSettling = true
        queue.asyncAfter(deadline: .now() + Self.settling) { [weak self] in self?.endSettling() }
    }

    private func endSettling() {
        isSettling = false
        let waiting = unsettled
        unsettled = [:]
        for (digest, before) in waiting {
            guard let status = try? catalog.directory(digest.algorithm)?.status(digest.hex) else { continue }
            if let before, status.identity == before {
                suspect(digest, nil)
            } else {
                settle(digest, status.identity)
            }
        }
    }

    // MARK: Hashing

    /// Has a blob hashed; it is not served meanwhile.
    private func suspect(_ digest: Digest, _ reason: String?) {
        forget(digest)
        guard checker.add(digest), let reason else { return }
        log.notice("a blob is checked before it is served", metadata: ["digest": "\(digest)", "reason": "\(reason)"])
    }

    func checked(_ digest: Digest, _ result: BlobChecker.Result) {
        switch result {
        case .success(let file?) where file.digest == digest: refresh(digest, .verified(file.identity))
        case .success(let file?): reject(digest, file.identity, "its bytes have the digest \(file.digest)")
        case .success(nil): refresh(digest, .noticed)
        case .failure(.closed): return
        case .failure(let error): logOnce("a blob cannot be checked", digest, error: error)
        }
    }

    /// Keeps a file that was found to be bad from being served while it is in that state.
    ///
    /// - Returns: `false` when only this process remembers it.
    @discardableResult
    func reject(_ digest: Digest, _ identity: FileIdentity, _ reason: String) -> Bool {
        guard (try? catalog.directory(digest.algorithm)?.status(digest.hex))?.identity == identity else {
            // Another file has its place, of which nothing was found: if it is served, it stays so.
            if catalog.identity(digest) == identity { forget(digest) }
            refresh(digest, .noticed)
            return true
        }
        forget(digest)
        log.error("a blob is damaged and not served", metadata: ["digest": "\(digest)", "reason": "\(reason)"])
        do throws(ContentStoreError) {
            try quarantine.add(digest, identity: identity, reason: reason, root: root)
            if quarantineDirectory == nil { openDirectories() }
            return true
        } catch {
            log.warning(
                "that the blob is damaged is remembered by this process only",
                metadata: ["digest": "\(digest)", "error": "\(error)"])
            return false
        }
    }

    /// Takes note that a file was hashed and found to be good: it is served if it was not.
    func accept(_ digest: Digest, _ identity: FileIdentity) {
        if quarantine[digest] != nil || catalog.identity(digest) != identity { refresh(digest, .verified(identity)) }
    }
}
