import ContentStore
import Logging
import NIOCore
import OCIDistribution

/// Pulls one image into a store: of an index, the platforms that are selected.
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
        /// Most pieces of one image; beyond it the pull fails.
        package var contents = 20_000
        /// Most bytes of all manifests together, which are in memory at once; beyond it the pull fails.
        package var manifestBytes: Int64 = 256 << 20

        /// The default bounds.
        package init() {}
    }

    private let client: RegistryClient
    private let endpoint: RegistryEndpoint
    private let store: any WritableContentStore
    private let platforms: PlatformSelection
    private let limits: Limits
    private let logger: Logger
    private let report: @Sendable (PullEvent) async -> Void

    /// A pull from one server.
    ///
    /// - Parameters:
    ///   - client: Does the requests.
    ///   - endpoint: The server that is asked.
    ///   - store: Where the content goes.
    ///   - platforms: What is taken of an index.
    ///   - limits: Bounds.
    ///   - logger: Receives a warning for each repeated try.
    ///   - report: Receives every event, from any thread; the pull goes on when it returns.
    package init(
        client: RegistryClient, endpoint: RegistryEndpoint, store: any WritableContentStore,
        platforms: PlatformSelection = .current, limits: Limits = Limits(),
        logger: Logger, report: @escaping @Sendable (PullEvent) async -> Void = { _ in }
    ) {
        self.client = client
        self.endpoint = endpoint
        self.store = store
        self.platforms = platforms
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
        var tree = try await fetchManifests(reference)
        let blobs = tree.blobs
        for blob in blobs { await report(.planned(blob.descriptor, blob.role)) }
        var contents: [PulledContent] = []
        var absent: Set<Digest> = []

        var waiting = blobs.makeIterator()
        try await withThrowingTaskGroup(of: (Digest, PulledContent?).self) { group in
            func startNext() {
                guard let blob = waiting.next() else { return }
                let mayBeAbsent = tree.mayLack(blob.descriptor.digest)
                group.addTask {
                    do {
                        let pulled = try await fetchBlob(blob.descriptor, blob.role, reference)
                        return (blob.descriptor.digest, pulled)
                    } catch PullError.notFound where mayBeAbsent {
                        return (blob.descriptor.digest, nil)
                    }
                }
            }
            for _ in 0..<max(1, limits.concurrency) { startNext() }
            while let (digest, pulled) = try await group.next() {
                if let pulled { contents.append(pulled) } else { absent.insert(digest) }
                startNext()
            }
        }
        try tree.leaveOutManifests(thatNeed: absent, of: reference)
        contents = tree.manifests.map(\.pulled) + contents
        // Children before parents, so that no manifest is in the store before its content.
        for manifest in tree.manifests.reversed() {
            do {
                try await store.write(manifest.bytes, as: manifest.pulled.descriptor.digest)
            } catch {
                throw PullError.store("writing manifest \(manifest.pulled.descriptor.digest): \(error)")
            }
            await report(.finished(manifest.pulled))
        }
        let target = tree.manifests[0].pulled.descriptor
        do {
            try await store.tag(target, as: reference)
        } catch {
            throw PullError.store("naming \(reference): \(error)")
        }
        return PullReport(
            reference: reference, target: target, contents: contents, omissions: tree.omissions,
            duration: clock.now - began)
    }

    /// The manifests of a pull, and what they name.
    private struct Tree {
        struct Node {
            var pulled: PulledContent
            var bytes: ByteBuffer
            /// The config and the layers to fetch; empty for an index.
            var blobs: [Digest] = []
            /// The platform that an index names the manifest with.
            var platform: Platform?
            /// Whether the pull fails without it.
            var isRequired: Bool
        }
        /// Parents before children; the first is what the reference names.
        var manifests: [Node] = []
        var blobs: [(descriptor: Descriptor, role: ContentRole)] = []
        var omissions: [PullOmission] = []
        /// The blobs of manifests without which the pull fails.
        var required: Set<Digest> = []

        /// Whether the pull goes on when the server does not have a blob.
        func mayLack(_ digest: Digest) -> Bool { !required.contains(digest) }

        /// Leaves out the image manifests whose blobs are absent.
        ///
        /// - Throws: ``PullError/noPlatform(_:)`` when no image manifest is left.
        mutating func leaveOutManifests(thatNeed absent: Set<Digest>, of reference: Reference) throws {
            guard !absent.isEmpty else { return }
            let incomplete = manifests.filter { !absent.isDisjoint(with: $0.blobs) }
            for node in incomplete {
                var descriptor = node.pulled.descriptor
                descriptor.platform = node.platform
                let count = absent.intersection(node.blobs).count
                omissions.append(PullOmission(descriptor: descriptor, reason: .incomplete(absent: count)))
            }
            let left = Set(incomplete.map(\.pulled.descriptor.digest))
            manifests.removeAll { left.contains($0.pulled.descriptor.digest) }
            guard manifests.contains(where: { $0.pulled.role != .index }) else {
                throw PullError.noPlatform("no platform of \(reference) is complete at the server")
            }
        }
    }

    private func fetchManifests(_ reference: Reference) async throws -> Tree {
        var tree = Tree()
        var seen: Set<Digest> = []
        var bytes: Int64 = 0
        let first: ManifestReference =
            reference.digest.map(ManifestReference.digest) ?? .tag(reference.tag ?? "latest")
        var queue: [(reference: ManifestReference, expected: Descriptor?, isRequired: Bool)] = [(first, nil, true)]
        var offered: [Platform] = []
        var next = 0
        while next < queue.count {
            let (wanted, expected, isRequired) = queue[next]
            next += 1
            var (fetched, node): (RegistryClient.FetchedManifest, Tree.Node)
            do {
                (fetched, node) = try await fetchManifest(wanted, reference)
            } catch {
                guard let error = error as? PullError, case .notFound = error, let expected else { throw error }
                guard !isRequired else {
                    let platform = expected.platform.map { " for \(printableASCII($0.description))" } ?? ""
                    throw PullError.noPlatform(
                        "the manifest\(platform) of \(reference) is not at the server (\(error))")
                }
                tree.omissions.append(PullOmission(descriptor: expected, reason: .absent))
                continue
            }
            if let expected, expected.size != fetched.descriptor.size {
                throw PullError.wrongSize(
                    expected.digest, described: expected.size, actual: fetched.descriptor.size)
            }
            bytes += fetched.descriptor.size
            guard bytes <= limits.manifestBytes else {
                throw PullError.tooLarge("\(reference) has more than \(limits.manifestBytes) bytes of manifests")
            }
            seen.insert(fetched.descriptor.digest)
            node.platform = expected?.platform
            node.isRequired = isRequired
            switch fetched.manifest {
            case .index(let index):
                let chosen = platforms.choose(from: index.manifests)
                offered += index.manifests.compactMap(\.platform).filter { !$0.isUnspecified }
                let taken = Set(chosen.map(\.digest))
                for child in index.manifests where !taken.contains(child.digest) {
                    tree.omissions.append(PullOmission(descriptor: child, reason: .otherPlatform))
                }
                // An element that names a platform is what the pull is for; others may be absent as long as something is left.
                for child in chosen where seen.insert(child.digest).inserted {
                    let isNamed = chosen.count == 1 || !(child.platform?.isUnspecified ?? true)
                    queue.append((.digest(child.digest), child, platforms != .all && isNamed))
                }
            case .image(let image):
                for child in [image.config] + image.layers {
                    if child.mediaType.isNondistributable {
                        guard seen.insert(child.digest).inserted else { continue }
                        tree.omissions.append(PullOmission(descriptor: child, reason: .foreign))
                        continue
                    }
                    node.blobs.append(child.digest)
                    if isRequired { tree.required.insert(child.digest) }
                    if seen.insert(child.digest).inserted { tree.blobs.append((child, ContentRole(child))) }
                }
            }
            tree.manifests.append(node)
            guard seen.count <= limits.contents else {
                throw PullError.tooLarge("\(reference) has more than \(limits.contents) pieces")
            }
        }
        guard tree.manifests.contains(where: { $0.pulled.role != .index }) || tree.omissions.isEmpty else {
            throw PullError.noPlatform(nothingTaken(of: reference, offered, tree.omissions))
        }
        return tree
    }

    private func nothingTaken(of reference: Reference, _ offered: [Platform], _ omissions: [PullOmission]) -> String {
        guard case .only(let platform) = platforms, omissions.contains(where: { $0.reason == .otherPlatform }) else {
            return "the index \(reference) is at the server, but none of its manifests"
        }
        let names = Set(offered.map { printableASCII($0.description) }).sorted()
        let others = names.count > 20 ? names.prefix(20) + ["…"] : names[...]
        return "\(reference) has no manifest for \(platform)"
            + (others.isEmpty ? "" : ", but for \(others.joined(separator: ", "))")
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
                await report(.planned(fetched.descriptor, pulled.role))
                return (fetched, Tree.Node(pulled: pulled, bytes: fetched.bytes, isRequired: true))
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
        func finished(source: RegistryEndpoint?, retries: Int) async -> PulledContent {
            let pulled = PulledContent(
                descriptor: descriptor, role: role, source: source, duration: clock.now - began, retries: retries)
            await report(.finished(pulled))
            return pulled
        }
        if let present = try? await store.info(digest), present.size == descriptor.size {
            return await finished(source: nil, retries: 0)
        }
        await report(.started(digest))
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
                return await finished(source: endpoint, retries: tries.total)
            } catch let error as PullError {
                await writer.abort()
                // Wrong bytes may have been an accident on the way; from the start, once more.
                guard case .corrupt = error, !tries.startedAgain else { throw error }
                tries.startedAgain = true
                tries.total += 1
                logger.warning("fetching again", metadata: ["digest": "\(digest)", "error": "\(error)"])
                await report(.retrying(digest, reason: "\(error)"))
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
                    await report(.progress(digest, received: writer.offset))
                }
                return
            } catch let error as PullError {
                // Only the end of the transfer is missing: nothing is left to ask for, and the commit checks the digest.
                if error.isTransient, descriptor.size > 0, writer.offset == descriptor.size { return }
                // As long as much arrives each time, it goes on.
                if writer.offset - before >= limits.progress { tries.failures = 0 }
                try await decide(error, &tries.failures, what: "\(digest)")
                tries.total += 1
                await report(.retrying(digest, reason: "\(error)"))
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
