import ContentStore
import GRPCCore
import Logging
import NIOConcurrencyHelpers
import NIOPosix
import OCIDistribution

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

#if canImport(Glibc)
    import Glibc
#endif

/// Makes the index equal to what containerd has. Its methods run one after the other.
final class Synchroniser: Sendable {
    /// Most content that is followed from one image; the next listing finds the rest.
    private static let reachLimit = 100_000
    /// The number of listed blobs that are opened to check whether a content path is containerd's.
    private static let sampleSize = 16
    /// The number of contents that are classified before the index is changed, which bounds memory.
    private static let batchSize = 512
    /// The number of images in one change of the index: each is an event for all content that it reaches.
    private static let imageBatchSize = 32
    /// After a listing of more contents than this, free memory is returned to the system.
    private static let largeListing = 1000

    private let client: ContainerdClient
    private let state: ContainerdState
    private let reportedContentPath: String?
    private let progress = NIOLockedValueBox(Progress())

    private struct Progress {
        var lastReconciliationTime: Duration = .zero
        /// Logged once, not with every listing.
        var reportedProblems: Set<String> = []
        var directoryMismatch = false
        /// Whether the last listing found nothing at the content path.
        var directoryMissing = false
    }

    init(client: ContainerdClient, state: ContainerdState, reportedContentPath: String?) {
        self.client = client
        self.state = state
        self.reportedContentPath = reportedContentPath
    }

    /// How long the last listing took.
    var lastReconciliationTime: Duration { progress.withLockedValue { $0.lastReconciliationTime } }

    // MARK: The content path

    private var candidate: BlobDirectory? {
        (state.configuration.contentPath ?? reportedContentPath).map { BlobDirectory(path: $0) }
    }

    /// The directory of blobs, if it can be read and is not known to belong to another containerd.
    func watchableDirectory() -> BlobDirectory? {
        guard let candidate, candidate.accessError() == nil, !progress.withLockedValue({ $0.directoryMismatch }) else {
            return nil
        }
        return candidate
    }

    /// Whether there is a directory at the content path that was missing at the last listing. Costs one `open(2)` while it is
    /// missing: containerd 1.7.24 to 2.2 make it with the first content.
    func directoryHasAppeared() -> Bool {
        guard progress.withLockedValue({ $0.directoryMissing }), let candidate else { return false }
        return candidate.accessError() != .missing
    }

    private func decideAccess(_ listed: [ContainerdContent]) async throws {
        let access: BlobAccess
        var error: BlobDirectory.AccessError?
        if let candidate {
            if let found = candidate.accessError() {
                progress.withLockedValue { $0.directoryMissing = found == .missing }
                let isReported = reportedContentPath.map { BlobDirectory(path: $0) == candidate } ?? true
                error = found == .missing && listed.isEmpty && isReported ? .notMadeYet : found
            } else {
                progress.withLockedValue { $0.directoryMissing = false }
                error = try await directoryMismatch(candidate, listed)
            }
            progress.withLockedValue { $0.directoryMismatch = error == .lacksContent }
            access =
                error.map { .service(candidate, $0, reported: reportedContentPath) } ?? .files(path: candidate.path)
        } else {
            access = .service(
                reason: "containerd does not report its content path; set --containerd-content-path")
        }
        let changed = state.update { storage in
            defer {
                storage.health.access = access
                if case .files = access { storage.directory = candidate } else { storage.directory = nil }
            }
            return storage.health.access != access
        }
        guard changed else { return }
        switch access {
        case .files: state.logger.info("reading content directly", metadata: ["access": "\(access)"])
        case .service where error == .notMadeYet:
            state.logger.info("waiting for containerd's first content", metadata: ["access": "\(access)"])
        case .service:
            state.logger.warning(
                "content is read through containerd, which is slower", metadata: ["access": "\(access)"])
        }
    }

    /// Checks whether the directory lacks content that containerd has.
    private func directoryMismatch(
        _ directory: BlobDirectory, _ listed: [ContainerdContent]
    ) async throws -> BlobDirectory.AccessError? {
        var missing: [ContainerdContent] = []
        for content in listed.prefix(Self.sampleSize) {
            switch directory.open(content.digest, size: content.size) {
            case .file(let descriptor):
                _ = ContentFile(takingOwnershipOf: descriptor, size: content.size)
                return nil
            case .damaged: return nil
            case .failed(let number) where number == EACCES || number == EPERM: return .denied
            case .failed(let number): return .other(String(cString: strerror(number)))
            case .absent: missing.append(content)
            }
        }
        // Content may have been removed meanwhile.
        for content in missing.prefix(3) where try await client.contentInfo(content.digest) != nil {
            return .lacksContent
        }
        return nil
    }

    private var classifier: ContentClassifier {
        ContentClassifier(client: client, directory: state.read { $0.directory }, threadPool: .singleton) {
            [weak self] digest, error in
            self?.warnOnce(
                "\(digest) is skipped, as containerd cannot read it: \(error.code): \(error.message)")
        }
    }

    // MARK: Everything

    /// Lists everything and makes the index equal to it.
    func reconcile() async throws {
        let start = ContinuousClock.now
        let listed = try await applyListing()
        // A large listing needs much more memory than the index that results.
        if listed.contents > Self.largeListing {
            try await NIOThreadPool.singleton.runIfActive { Malloc.trim() }
        }
        progress.withLockedValue { $0.lastReconciliationTime = .now - start }
        let first = state.update { storage in
            defer { storage.health.isIndexed = true }
            storage.health.reconciliations += 1
            return !storage.health.isIndexed
        }
        state.logger.log(
            level: first ? .info : .debug, "listed what containerd has",
            metadata: [
                "images": "\(listed.images)", "contents": "\(listed.contents)", "new": "\(listed.new)",
                "gone": "\(listed.gone)", "duration": "\(ContinuousClock.now - start)",
            ])
    }

    /// Lists everything and changes the index; returns the counts.
    private func applyListing() async throws -> (images: Int, contents: Int, new: Int, gone: Int) {
        let (images, unreadable) = try await client.listImages()
        let listing = NIOLockedValueBox<(contents: [ContainerdContent], unsupported: Int)>(([], 0))
        try await client.listContent { batch, unsupported in
            listing.withLockedValue {
                $0.contents += batch
                $0.unsupported += unsupported
            }
        }
        let (contents, unsupported) = listing.withLockedValue { $0 }
        try await decideAccess(contents)
        try await reportProblems(isEmpty: images.isEmpty && contents.isEmpty)

        let gone = missing(from: contents)
        var new = 0
        for start in stride(from: 0, to: contents.count, by: Self.batchSize) {
            let batch = contents[start..<min(start + Self.batchSize, contents.count)]
            let unknown = state.read { storage in
                batch.filter { storage.index.size(of: $0.digest) != $0.size }
            }
            new += unknown.count
            apply(try await classifier.classify(unknown))
            state.change { index, events in
                for content in batch {
                    index.setBackendSources(of: content.digest, to: content.sources, events: &events)
                }
            }
        }
        // Content committed meanwhile is not in the listing.
        let confirmed = try await mapConcurrently(gone, limit: ContentClassifier.concurrency) { digest in
            try await self.client.contentInfo(digest) == nil ? digest : nil
        }
        remove(confirmed.compactMap { $0 })
        set(images, replacingAll: true)

        for name in unreadable { warnOnce("the target of image \(name) cannot be parsed") }
        if unsupported > 0 { warnOnce("\(unsupported) contents have a digest that is not supported") }
        return (images.count, contents.count, new, confirmed.count)
    }

    /// Content in the index that a listing lacks.
    private func missing(from listing: [ContainerdContent]) -> [Digest] {
        let present = state.read { $0.index.presentDigests }
        guard !present.isEmpty else { return [] }
        let listed = Set(listing.lazy.map(\.digest))
        return present.filter { !listed.contains($0) }
    }

    private func reportProblems(isEmpty: Bool) async throws {
        var problems: [String] = []
        if isEmpty {
            // An empty namespace is normal on a new node; one that does not exist is probably misspelt.
            let namespaces = try await client.namespaces()
            if !namespaces.contains(client.namespace) {
                let others = namespaces.isEmpty ? "none at all" : namespaces.sorted().joined(separator: ", ")
                problems.append(
                    "containerd has no namespace \(client.namespace) (--containerd-namespace); it has: \(others)")
            }
        }
        for problem in problems { warnOnce(problem) }
        let found = problems
        state.update { $0.health.problems = found }
    }

    private func warnOnce(_ problem: String) {
        let isNew = progress.withLockedValue {
            // Bounded, as names of damaged images are part of the messages.
            $0.reportedProblems.count < 1000 && $0.reportedProblems.insert(problem).inserted
        }
        if isNew { state.logger.warning("\(problem)") }
    }

    // MARK: Single names and contents

    /// Checks names again.
    ///
    /// - Returns: whether a name was removed or its target changed, so that content may become garbage.
    func update(images names: Set<String>) async throws -> Bool {
        guard !names.isEmpty else { return false }
        let client = self.client
        let answers = try await mapConcurrently(names, limit: ContentClassifier.concurrency) { name in
            (name, try await client.image(named: name))
        }
        let present = answers.compactMap(\.1)
        try await walk(from: present.map(\.target.digest))
        var changed = set(present, replacingAll: false)
        state.change { index, events in
            for case (let name, nil) in answers {
                guard let reference = Reference(name), index.target(of: reference) != nil else { continue }
                index.removeImage(reference, events: &events)
                changed = true
            }
        }
        return changed
    }

    /// Checks content again.
    ///
    /// - Returns: content that is absent or without a source, with the number of failed checks before.
    func update(contents: [Digest: Int]) async throws -> [Digest: Int] {
        guard !contents.isEmpty else { return [:] }
        let found = try await check(Array(contents.keys))
        remove(contents.keys.filter { !found.contains($0) })
        // A puller labels content with its source after committing it, without an event.
        return state.read { storage in
            contents.filter { digest, _ in storage.index.info(digest)?.sources.isEmpty ?? true }
        }
    }

    /// Adds all reachable content that is present, also that without an event.
    private func walk(from roots: [Digest]) async throws {
        var seen = Set(roots)
        var level = Array(seen)
        while !level.isEmpty {
            let unknown = state.read { storage in level.filter { storage.index.info($0) == nil } }
            if !unknown.isEmpty { _ = try await check(unknown) }
            let children = state.read { storage in level.flatMap { storage.index.children(of: $0) } }
            level = children.filter { seen.insert($0).inserted }
            if seen.count > Self.reachLimit {
                warnOnce("an image reaches more than \(Self.reachLimit) contents; the rest is found by listing")
                return
            }
        }
    }

    /// Looks content up in containerd and adds what is present.
    private func check(_ digests: [Digest]) async throws -> Set<Digest> {
        let client = self.client
        let present = try await mapConcurrently(digests, limit: ContentClassifier.concurrency) {
            try await client.contentInfo($0)
        }.compactMap { $0 }
        // Known content is classified again to check that its bytes still exist.
        let classified = try await classifier.classify(present)
        apply(classified)
        return Set(classified.map(\.digest))
    }

    // MARK: Changing the index

    private func apply(_ contents: [ClassifiedContent]) {
        guard !contents.isEmpty else { return }
        state.change { index, events in
            for content in contents {
                index.setContent(
                    content.digest, size: content.size, mediaType: content.mediaType,
                    children: content.children, events: &events)
                index.setBackendSources(of: content.digest, to: content.sources, events: &events)
            }
        }
    }

    private func remove(_ digests: [Digest]) {
        guard !digests.isEmpty else { return }
        state.change { index, events in
            for digest in digests { index.removeContent(digest, events: &events) }
        }
    }

    /// Sets images. Names without a registry cannot be requested and are skipped.
    @discardableResult
    private func set(_ images: [ContainerdImage], replacingAll: Bool) -> Bool {
        let named = images.compactMap { image in
            Reference(image.name).map { StoredImage(reference: $0, target: image.target) }
        }
        var changed = false
        for start in stride(from: 0, to: named.count, by: Self.imageBatchSize) {
            let batch = named[start..<min(start + Self.imageBatchSize, named.count)]
            let targetChanged = state.change { index, events in
                var targetChanged = false
                for image in batch {
                    if let old = index.target(of: image.reference), old.digest != image.target.digest {
                        targetChanged = true
                    }
                    index.setImage(image, events: &events)
                }
                return targetChanged
            }
            changed = changed || targetChanged
        }
        guard replacingAll else { return changed }
        let current = Set(named.lazy.map(\.reference))
        state.change { index, events in
            for reference in index.references.filter({ !current.contains($0) }) {
                index.removeImage(reference, events: &events)
            }
        }
        return changed
    }
}

/// The allocator of the C library.
enum Malloc {
    #if canImport(Glibc)
        private typealias Trim = @convention(c) (Int) -> CInt

        /// `malloc_trim(3)`, which Swift's module of the C library lacks.
        private static let mallocTrim: Trim? = dlsym(nil, "malloc_trim").map { unsafeBitCast($0, to: Trim.self) }

        /// Returns free memory to the system. It blocks for milliseconds.
        static func trim() { _ = mallocTrim?(0) }
    #else
        /// Has no effect: other C libraries return free memory by themselves.
        static func trim() {}
    #endif
}
