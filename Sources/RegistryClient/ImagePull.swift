import ContentStore
import Logging
import NIOCore
import OCIDistribution

/// Pulls one image with all its platforms into a store.
///
/// Blobs go straight to the store's writer, which checks them while they pass. A transfer that breaks is taken up again
/// where it ended. The name is given last, when everything is there.
package struct ImagePull: Sendable {
    /// Bounds of a pull.
    package struct Limits: Sendable {
        /// Blobs that are fetched at the same time.
        package var concurrency = 4
        /// How often in a row one piece may be asked for again.
        package var retries = 5
        /// Bytes that have to arrive for a try not to count as one that got nowhere.
        package var progress: Int64 = 1 << 20
        /// The wait before the first repetition, which doubles each time.
        package var backoff: Duration = .milliseconds(100)
        /// Most pieces of one image.
        package var contents = 20_000
        /// How deep indexes may stand in indexes.
        package var depth = 4

        /// The default bounds.
        package init() {}
    }

    private let client: RegistryClient
    private let endpoint: RegistryEndpoint
    private let store: any WritableContentStore
    private let limits: Limits
    private let logger: Logger
    private let report: @Sendable (PullEvent) -> Void

    /// A pull from one server.
    ///
    /// - Parameters:
    ///   - client: Does the requests.
    ///   - endpoint: Whom to ask.
    ///   - store: Where the content goes.
    ///   - limits: Bounds.
    ///   - logger: Hears of repeated tries.
    ///   - report: Hears of every event, from any thread.
    package init(
        client: RegistryClient, endpoint: RegistryEndpoint, store: any WritableContentStore, limits: Limits = Limits(),
        logger: Logger, report: @escaping @Sendable (PullEvent) -> Void = { _ in }
    ) {
        self.client = client
        self.endpoint = endpoint
        self.store = store
        self.limits = limits
        self.logger = logger
        self.report = report
    }

    /// Pulls what the reference names.
    ///
    /// - Throws: ``PullError`` or `CancellationError`.
    package func run(_ reference: Reference) async throws -> PullReport {
        let clock = ContinuousClock()
        let began = clock.now
        let tree = try await fetchManifests(reference)
        let blobs = tree.blobs.map { ($0.descriptor, $0.role) }
        for blob in blobs { report(.planned(blob.0, blob.1)) }
        var contents = tree.manifests.map(\.pulled)

        var waiting = blobs.makeIterator()
        try await withThrowingTaskGroup(of: PulledContent.self) { group in
            func startNext() {
                guard let (descriptor, role) = waiting.next() else { return }
                group.addTask { try await fetchBlob(descriptor, role, reference) }
            }
            for _ in 0..<max(1, limits.concurrency) { startNext() }
            while let done = try await group.next() {
                contents.append(done)
                startNext()
            }
        }
        // Children before parents, so that nobody finds a manifest whose content is still missing.
        for manifest in tree.manifests.reversed() {
            do {
                try await store.write(manifest.bytes, as: manifest.pulled.descriptor.digest)
            } catch {
                throw PullError.store("writing manifest \(manifest.pulled.descriptor.digest): \(error)")
            }
            report(.finished(manifest.pulled))
        }
        let target = tree.manifests[0].pulled.descriptor
        do {
            try await store.tag(target, as: reference)
        } catch {
            throw PullError.store("naming \(reference): \(error)")
        }
        return PullReport(reference: reference, target: target, contents: contents, duration: clock.now - began)
    }

    private struct Tree {
        struct Node {
            var pulled: PulledContent
            var bytes: ByteBuffer
        }
        /// Parents before children; the first is what the reference names.
        var manifests: [Node] = []
        var blobs: [(descriptor: Descriptor, role: ContentRole)] = []
    }

    private func fetchManifests(_ reference: Reference) async throws -> Tree {
        var tree = Tree()
        var seen: Set<Digest> = []
        let first: ManifestReference =
            reference.digest.map(ManifestReference.digest) ?? .tag(reference.tag ?? "latest")
        var queue: [(reference: ManifestReference, expected: Descriptor?, depth: Int)] = [(first, nil, 0)]
        var next = 0
        while next < queue.count {
            let (wanted, expected, depth) = queue[next]
            next += 1
            let (fetched, node) = try await fetchManifest(wanted, reference)
            if let expected, expected.size != fetched.descriptor.size {
                throw PullError.badManifest(
                    expected.digest, reason: "\(fetched.descriptor.size) bytes, not the \(expected.size) announced")
            }
            seen.insert(fetched.descriptor.digest)
            tree.manifests.append(node)
            for child in fetched.manifest.references where seen.insert(child.digest).inserted {
                if child.mediaType.isManifest {
                    guard depth < limits.depth else {
                        throw PullError.tooLarge("indexes stand more than \(limits.depth) deep in each other")
                    }
                    queue.append((.digest(child.digest), child, depth + 1))
                } else if !child.mediaType.isNondistributable {
                    tree.blobs.append((child, ContentRole(child)))
                }
                guard seen.count <= limits.contents else {
                    throw PullError.tooLarge("\(reference) has more than \(limits.contents) pieces")
                }
            }
        }
        return tree
    }

    private func fetchManifest(
        _ wanted: ManifestReference, _ reference: Reference
    ) async throws -> (RegistryClient.FetchedManifest, Tree.Node) {
        let clock = ContinuousClock()
        let began = clock.now
        var attempt = 0
        while true {
            do throws(PullError) {
                let fetched = try await client.manifest(
                    wanted, repository: reference.repository, registry: reference.registry, from: endpoint)
                let pulled = PulledContent(
                    descriptor: fetched.descriptor, role: ContentRole(fetched.descriptor), source: endpoint,
                    duration: clock.now - began, retries: attempt)
                report(.planned(fetched.descriptor, pulled.role))
                return (fetched, Tree.Node(pulled: pulled, bytes: fetched.bytes))
            } catch {
                try await decide(error, &attempt, what: "\(wanted)")
            }
        }
    }

    private struct Tries {
        /// Failures since the last real progress.
        var failures = 0
        /// Repetitions altogether.
        var total = 0
        /// Whether wrong bytes were thrown away once.
        var startedAgain = false
    }

    private func fetchBlob(
        _ descriptor: Descriptor, _ role: ContentRole, _ reference: Reference
    ) async throws -> PulledContent {
        let clock = ContinuousClock()
        let began = clock.now
        let digest = descriptor.digest
        func finished(source: RegistryEndpoint?, retries: Int) -> PulledContent {
            let pulled = PulledContent(
                descriptor: descriptor, role: role, source: source, duration: clock.now - began, retries: retries)
            report(.finished(pulled))
            return pulled
        }
        if let present = try? await store.info(digest), present.size == descriptor.size {
            return finished(source: nil, retries: 0)
        }
        report(.started(digest))
        var tries = Tries()
        while true {
            let writer = try await storing("beginning \(digest)") {
                try await store.beginWrite(digest, size: descriptor.size)
            }
            do {
                try await fill(writer, descriptor, reference, &tries)
                do {
                    _ = try await writer.commit()
                } catch let error as ContentStoreError {
                    if case .digestMismatch = error { throw PullError.corrupt(digest, reason: "\(error)") }
                    throw PullError.store("writing \(digest): \(error)")
                }
                return finished(source: endpoint, retries: tries.total)
            } catch let error as PullError {
                await writer.abort()
                // Wrong bytes may have been an accident on the way; from the start, once more.
                guard case .corrupt = error, !tries.startedAgain else { throw error }
                tries.startedAgain = true
                tries.total += 1
                logger.warning("fetching again", metadata: ["digest": "\(digest)", "error": "\(error)"])
                report(.retrying(digest, reason: "\(error)"))
            } catch {
                await writer.abort()
                throw error
            }
        }
    }

    /// Brings the writer to the blob's full size, whatever number of transfers that takes.
    private func fill(
        _ writer: any ContentWriter, _ descriptor: Descriptor, _ reference: Reference, _ tries: inout Tries
    ) async throws {
        let digest = descriptor.digest
        while true {
            let before = writer.offset
            do {
                try await client.blob(
                    digest, repository: reference.repository, registry: reference.registry, from: endpoint,
                    offset: before, size: descriptor.size
                ) { piece in
                    try await storing("writing \(digest)") { try await writer.append(piece) }
                    report(.progress(digest, received: writer.offset))
                }
                return
            } catch let error as PullError {
                // Only the end of the transfer is missing: nothing is left to ask for, and the commit checks the digest.
                if error.isTransient, descriptor.size > 0, writer.offset == descriptor.size { return }
                // As long as much arrives each time, it goes on.
                if writer.offset - before >= limits.progress { tries.failures = 0 }
                try await decide(error, &tries.failures, what: "\(digest)")
                tries.total += 1
                report(.retrying(digest, reason: "\(error)"))
            }
        }
    }

    /// Returns after a wait when another try makes sense, else throws the error.
    private func decide(_ error: PullError, _ attempt: inout Int, what: String) async throws {
        try Task.checkCancellation()
        guard error.isTransient, attempt < limits.retries else { throw error }
        let wait = limits.backoff * (1 << min(attempt, 10))
        attempt += 1
        logger.warning("trying again", metadata: ["what": "\(what)", "attempt": "\(attempt)", "error": "\(error)"])
        try await Task.sleep(for: wait)
    }

    private func storing<Value>(_ what: String, _ work: () async throws -> Value) async throws -> Value {
        do {
            return try await work()
        } catch {
            throw PullError.store("\(what): \(error)")
        }
    }
}
