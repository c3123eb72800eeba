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

/// Looks at containerd and makes the index say the same. Its methods run one after the other.
final class Synchroniser: Sendable {
    /// How much content one image may reach; beyond it the rest is left to the next listing.
    private static let reachLimit = 100_000
    /// How many listed blobs are looked for to find out whether a content path is containerd's.
    private static let sampleSize = 16
    /// How many new contents are classified before the index is changed, which bounds what is held.
    private static let batchSize = 512
    /// How many images are set in one change of the index: each is an event for all that it reaches.
    private static let imageBatchSize = 32
    /// After a listing of more contents than this, free memory is given back to the system.
    private static let largeListing = 1000

    private let client: ContainerdClient
    private let state: ContainerdState
    private let reportedContentPath: String?
    private let progress = NIOLockedValueBox(Progress())

    private struct Progress {
        var lastReconciliationTime: Duration = .zero
        /// Said once, not with every listing.
        var reportedProblems: Set<String> = []
        var foundForeign = false
    }

    init(client: ContainerdClient, state: ContainerdState, reportedContentPath: String?) {
        self.client = client
        self.state = state
        self.reportedContentPath = reportedContentPath
    }

    /// How long the last listing took.
    var lastReconciliationTime: Duration { progress.withLockedValue { $0.lastReconciliationTime } }

    // MARK: Where the bytes are

    private var candidate: BlobDirectory? {
        (state.configuration.contentPath ?? reportedContentPath).map { BlobDirectory(path: $0) }
    }

    /// The directory of blobs, when it can be read and is not known to be another's.
    func watchableDirectory() -> BlobDirectory? {
        guard let candidate, candidate.fault() == nil, !progress.withLockedValue({ $0.foundForeign }) else {
            return nil
        }
        return candidate
    }

    private func decideAccess(_ listed: [ContainerdContent]) async throws {
        let access: BlobAccess
        if let candidate {
            let fault: BlobDirectory.Fault?
            if let found = candidate.fault() {
                fault = found
            } else {
                fault = try await foreignness(of: candidate, listed)
            }
            progress.withLockedValue { $0.foundForeign = fault == .lacksContent }
            access =
                fault.map { .service(candidate, $0, reported: reportedContentPath) } ?? .files(path: candidate.path)
        } else {
            access = .service(
                reason: "containerd does not say where it keeps content; set --containerd-content-path")
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
        case .service:
            state.logger.warning("reading content is slower than need be", metadata: ["access": "\(access)"])
        }
    }

    /// Whether what containerd has is missing from the directory.
    private func foreignness(
        of directory: BlobDirectory, _ listed: [ContainerdContent]
    ) async throws -> BlobDirectory.Fault? {
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
        // It may just have been removed.
        for content in missing.prefix(3) where try await client.contentInfo(content.digest) != nil {
            return .lacksContent
        }
        return nil
    }

    private var classifier: ContentClassifier {
        ContentClassifier(client: client, directory: state.read { $0.directory }, threadPool: .singleton) {
            [weak self] digest, error in
            self?.warnOnce(
                "\(digest) is passed over, as containerd cannot read it: \(error.code): \(error.message)")
        }
    }

    // MARK: Everything

    /// Lists all there is and makes the index the same.
    func reconcile() async throws {
        let start = ContinuousClock.now
        let listed = try await takeOverListing()
        // A listing of very much needs much more memory than what stays of it.
        if listed.contents > Self.largeListing {
            try await NIOThreadPool.singleton.runIfActive { FreeMemory.giveBack() }
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

    /// Lists all there is and changes the index; says how much there was of what.
    private func takeOverListing() async throws -> (images: Int, contents: Int, new: Int, gone: Int) {
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
                for content in batch { index.setOrigins(of: content.digest, to: content.sources, events: &events) }
            }
        }
        // A listing is older than what was committed meanwhile.
        let confirmed = try await mapConcurrently(gone, limit: ContentClassifier.concurrency) { digest in
            try await self.client.contentInfo(digest) == nil ? digest : nil
        }
        remove(confirmed.compactMap { $0 })
        set(images, replacingAll: true)

        for name in unreadable { warnOnce("the target of image \(name) cannot be understood") }
        if unsupported > 0 { warnOnce("\(unsupported) contents have a digest that is not supported") }
        return (images.count, contents.count, new, confirmed.count)
    }

    /// What the index has and a listing lacks.
    private func missing(from listing: [ContainerdContent]) -> [Digest] {
        let present = state.read { $0.index.presentDigests }
        guard !present.isEmpty else { return [] }
        let listed = Set(listing.lazy.map(\.digest))
        return present.filter { !listed.contains($0) }
    }

    private func reportProblems(isEmpty: Bool) async throws {
        var problems: [String] = []
        if isEmpty {
            // An existing namespace with nothing in it is the beginning of every node; a misspelt one never fills.
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
            // Bounded, as the names of damaged images are part of it.
            $0.reportedProblems.count < 1000 && $0.reportedProblems.insert(problem).inserted
        }
        if isNew { state.logger.warning("\(problem)") }
    }

    // MARK: Single things

    /// Looks at names again.
    ///
    /// - Returns: whether a name was removed or leads elsewhere now, so that content may become garbage.
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

    /// Looks at content again.
    ///
    /// - Returns: what is not there, or not known to be from anywhere, with how many times it was asked for in vain
    ///   before.
    func update(contents: [Digest: Int]) async throws -> [Digest: Int] {
        guard !contents.isEmpty else { return [:] }
        let found = try await look(at: Array(contents.keys))
        remove(contents.keys.filter { !found.contains($0) })
        // A puller labels content with its source after committing it, and containerd does not tell.
        return state.read { storage in
            contents.filter { digest, _ in storage.index.info(digest)?.sources.isEmpty ?? true }
        }
    }

    /// Adds what is present of all that is reachable, including what no event told of.
    private func walk(from roots: [Digest]) async throws {
        var seen = Set(roots)
        var level = Array(seen)
        while !level.isEmpty {
            let unknown = state.read { storage in level.filter { storage.index.info($0) == nil } }
            if !unknown.isEmpty { _ = try await look(at: unknown) }
            let children = state.read { storage in level.flatMap { storage.index.children(of: $0) } }
            level = children.filter { seen.insert($0).inserted }
            if seen.count > Self.reachLimit {
                warnOnce("an image reaches more than \(Self.reachLimit) contents; the rest is found by listing")
                return
            }
        }
    }

    /// Asks containerd about content and adds what is present.
    private func look(at digests: [Digest]) async throws -> Set<Digest> {
        let client = self.client
        let present = try await mapConcurrently(digests, limit: ContentClassifier.concurrency) {
            try await client.contentInfo($0)
        }.compactMap { $0 }
        // What is known already only needs another look at whether its bytes are still there.
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
                index.setOrigins(of: content.digest, to: content.sources, events: &events)
            }
        }
    }

    private func remove(_ digests: [Digest]) {
        guard !digests.isEmpty else { return }
        state.change { index, events in
            for digest in digests { index.removeContent(digest, events: &events) }
        }
    }

    /// Names without a registry cannot be asked for and are left out.
    @discardableResult
    private func set(_ images: [ContainerdImage], replacingAll: Bool) -> Bool {
        let named = images.compactMap { image in
            Reference(image.name).map { StoredImage(reference: $0, target: image.target) }
        }
        var changed = false
        for start in stride(from: 0, to: named.count, by: Self.imageBatchSize) {
            let batch = named[start..<min(start + Self.imageBatchSize, named.count)]
            let leadElsewhere = state.change { index, events in
                var leadElsewhere = false
                for image in batch {
                    if let old = index.target(of: image.reference), old.digest != image.target.digest {
                        leadElsewhere = true
                    }
                    index.setImage(image, events: &events)
                }
                return leadElsewhere
            }
            changed = changed || leadElsewhere
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

/// Memory that was freed and that the C library keeps for later.
enum FreeMemory {
    #if canImport(Glibc)
        private typealias Trim = @convention(c) (Int) -> CInt

        /// `malloc_trim(3)`, which Swift's module of the C library does not have.
        private static let trim: Trim? = dlsym(nil, "malloc_trim").map { unsafeBitCast($0, to: Trim.self) }

        /// Gives it back to the system. It blocks for milliseconds.
        static func giveBack() { _ = trim?(0) }
    #else
        /// Gives it back to the system; other C libraries do so themselves.
        static func giveBack() {}
    #endif
}
