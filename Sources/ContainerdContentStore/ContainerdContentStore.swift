import ContentStore
import Logging
import Metrics
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import OCIDistribution
import ServiceLifecycle

/// A store over containerd: its images, and its content as files or through its API.
///
/// An index in memory answers every lookup. It is filled when containerd is first reached, and kept current by containerd's
/// events, by watching the directory of blobs, and by periodic listings. Serving content makes no calls to containerd, and
/// continues from disk while containerd is stopped.
///
/// ```swift
/// let store = ContainerdContentStore(configuration: .init(), logger: logger)
/// try await store.start()
/// try await store.waitUntilIndexed()
/// ```
///
/// **Lifecycle.** ``start()`` begins to connect, ``run()`` starts the store if need be and shuts it down with its service
/// group, ``shutdown()`` may be called at any time and any number of times. A store that was shut down does not start
/// again; make a new one.
public final class ContainerdContentStore: WritableContentStore, Service {
    /// How the store reaches containerd.
    public let configuration: ContainerdConfiguration
    private let logger: Logger
    private let state: ContainerdState
    private let writers: WriterLimit
    private let lifecycle = Lifecycle(name: "containerd store")
    private let task = NIOLockedValueBox<Task<Void, Never>?>(nil)

    /// Creates a store, which connects when it is started.
    ///
    /// - Parameters:
    ///   - configuration: how containerd is reached.
    ///   - metricsFactory: receives the metrics; nil for that of the process.
    ///   - logger: receives messages about connections and problems.
    public init(
        configuration: ContainerdConfiguration, metricsFactory: (any MetricsFactory)? = nil, logger: Logger
    ) {
        self.configuration = configuration
        self.logger = logger
        self.state = ContainerdState(
            configuration: configuration, metricsFactory: metricsFactory ?? MetricsSystem.factory, logger: logger)
        self.writers = WriterLimit(limit: configuration.writerLimit)
    }

    deinit {
        task.withLockedValue { $0?.cancel() }
        state.hub.finish()
    }

    // MARK: Lifecycle

    /// Begins to connect, in a task of its own, and returns without waiting for containerd. Connections that end, or cannot
    /// be made, are followed by others until the store is shut down.
    ///
    /// - Throws: `LifecycleError` when the store was started or shut down before.
    public func start() async throws {
        try await lifecycle.start {
            // The task must not keep the store alive.
            let task = Task { [state] in await ConnectionLoop(state: state).run() }
            self.task.withLockedValue { $0 = task }
        }
    }

    /// Starts the store unless it was started, and shuts it down when its service group shuts down gracefully or the task is
    /// cancelled.
    ///
    /// - Throws: `LifecycleError` when the store was shut down before.
    public func run() async throws {
        try await lifecycle.run(start: { try await start() }, shutdown: { _ in await shutdown() })
    }

    /// Ends the connection and all subscriptions. What is known is served from disk until the store is released.
    public func shutdown() async {
        await lifecycle.end { [task] in
            let task = task.withLockedValue { $0.take() }
            task?.cancel()
            await task?.value
        }
        state.hub.finish()
    }

    // MARK: State

    /// The state of the connection and the index, for readiness and metrics.
    public var health: ContainerdHealth { state.read { $0.health } }

    /// Waits until everything in containerd was listed once, without a limit.
    ///
    /// - Throws: `CancellationError`.
    public func waitUntilIndexed() async throws {
        for await event in events() where event == .snapshotComplete { return }
        try Task.checkCancellation()
    }

    // MARK: Immediate answers

    /// Finds what a reference names; ``ImmediateAnswer/unknown`` only until everything was listed once.
    public func resolveImmediately(_ reference: Reference) -> ImmediateAnswer<Descriptor> {
        state.read { storage in
            answer(storage.index.resolve(reference), storage)
        }
    }

    /// Describes content; ``ImmediateAnswer/unknown`` only until everything was listed once.
    public func infoImmediately(_ digest: Digest) -> ImmediateAnswer<ContentInfo> {
        state.read { storage in
            answer(storage.index.info(digest), storage)
        }
    }

    /// Opens content: a cached manifest from memory, anything else as a file if possible; ``ImmediateAnswer/unknown`` only until everything was listed once.
    public func openImmediately(_ digest: Digest) -> ImmediateAnswer<OpenContent> {
        switch state.locate(digest) {
        case .unknown: return .unknown
        case .absent: return .absent
        case .found(let located):
            if let bytes = located.bytes {
                return .found(OpenContent(info: located.info, body: .bytes(bytes)))
            }
            if located.shouldWarm { warm(located) }
            return ImmediateAnswer(known: open(located.info, in: located.directory))
        }
    }

    /// Reads a manifest into memory, for later requests.
    private func warm(_ located: ContainerdState.Located) {
        let info = located.info
        Task { [state] in
            var bytes: ByteBuffer?
            if let directory = located.directory {
                let read = try? await NIOThreadPool.singleton.runIfActive { () -> ByteBuffer? in
                    guard case .file(let descriptor) = directory.open(info.digest, size: info.size) else {
                        return nil
                    }
                    return try ContentFile(takingOwnershipOf: descriptor, size: info.size)
                        .read(at: 0, count: Int(info.size))
                }
                bytes = read ?? nil
            } else if let client = try? state.connectedSession().client {
                bytes = try? await client.readContent(info.digest, offset: 0, count: Int(info.size))
            }
            if let read = bytes, Digest.hash(info.digest.algorithm, of: read.readableBytesView) != info.digest {
                bytes = nil
            }
            state.warmed(info.digest, bytes)
        }
    }

    private func answer<Value>(
        _ value: Value?, _ storage: borrowing ContainerdState.Storage
    ) -> ImmediateAnswer<Value> {
        if let value { return .found(value) }
        return storage.health.isIndexed ? .absent : .unknown
    }

    private func open(_ info: ContentInfo, in directory: BlobDirectory?) -> OpenContent? {
        guard let directory else { return streamed(info) }
        switch directory.open(info.digest, size: info.size) {
        case .file(let descriptor):
            return OpenContent(
                info: info, body: .file(ContentFile(takingOwnershipOf: descriptor, size: info.size)))
        case .absent:
            state.read(\.session)?.recheck(info.digest)
            return nil
        case .damaged(let reason):
            logger.warning(
                "content is damaged on disk", metadata: ["digest": "\(info.digest)", "reason": "\(reason)"])
            state.read(\.session)?.recheck(info.digest)
            return nil
        case .failed(let number):
            logger.debug(
                "content cannot be opened as a file",
                metadata: ["digest": "\(info.digest)", "errno": "\(number)"])
            return streamed(info)
        }
    }

    private func streamed(_ info: ContentInfo) -> OpenContent {
        let stream = ContentStream(size: info.size) { [state] range in
            ContainerdReadSequence(digest: info.digest, range: range) { try state.connectedSession().client }
        }
        return OpenContent(info: info, body: .stream(stream))
    }

    // MARK: Reading

    /// Finds what a reference names.
    ///
    /// - Throws: ``ContentStoreError`` when the index is not filled yet and containerd cannot be reached.
    public func resolve(_ reference: Reference) async throws -> Descriptor? {
        switch resolveImmediately(reference) {
        case .found(let descriptor): return descriptor
        case .absent: return nil
        case .unknown: break
        }
        if let digest = reference.digest { return try await info(digest)?.descriptor }
        let client = try state.connectedSession().client
        return try await asStoreError { try await client.image(named: reference.description) }?.target
    }

    /// Describes content.
    ///
    /// - Throws: ``ContentStoreError`` when the index is not filled yet and containerd cannot be reached.
    public func info(_ digest: Digest) async throws -> ContentInfo? {
        switch infoImmediately(digest) {
        case .found(let info): return info
        case .absent: return nil
        case .unknown: break
        }
        let client = try state.connectedSession().client
        let directory = state.read { $0.directory }
        let classifier = ContentClassifier(client: client, directory: directory, threadPool: .singleton) {
            [logger] digest, error in
            logger.debug("content cannot be read", metadata: ["digest": "\(digest)", "error": "\(error)"])
        }
        return try await asStoreError { () -> ClassifiedContent? in
            guard let content = try await client.contentInfo(digest) else { return nil }
            return try await classifier.classify([content]).first
        }.map { ContentInfo(digest: digest, size: $0.size, mediaType: $0.mediaType, sources: $0.sources) }
    }

    /// Opens content, as a file if possible.
    ///
    /// - Throws: ``ContentStoreError`` when the index is not filled yet and containerd cannot be reached.
    public func open(_ digest: Digest) async throws -> OpenContent? {
        switch openImmediately(digest) {
        case .found(let content): return content
        case .absent: return nil
        case .unknown: break
        }
        guard let info = try await info(digest) else { return nil }
        return open(info, in: state.read { $0.directory })
    }

    /// Opens content that a client of containerd is writing now, such as a pull: its ingest below the content path.
    ///
    /// `nil` also when blobs are not read as files.
    ///
    /// - Throws: ``ContentStoreError`` when the ingest cannot be read.
    public func openArriving(_ digest: Digest) async throws -> ArrivingContent? {
        let (isStored, directory, isConnected, lost) = state.read {
            ($0.index.info(digest) != nil, $0.directory, $0.session != nil, $0.health.lostConnections)
        }
        guard !isStored, isConnected, let directory else { return nil }
        // containerd's end is that of whatever it was fetching; the file remains.
        let ingests = IngestDirectory(contentPath: directory.path, namespace: configuration.namespace) { [state] in
            state.read { $0.health.lostConnections == lost }
        }
        return try await NIOThreadPool.singleton.runIfActive { try ingests.open(digest) }
    }

    /// Lists the images that have a full name, sorted by name.
    ///
    /// - Throws: ``ContentStoreError/unavailable(_:)`` when everything was not listed yet.
    public func images() async throws -> [StoredImage] {
        try requireIndex()
        return state.read { $0.index.images }
    }

    /// Lists the content that is reachable from an image and really present.
    ///
    /// - Throws: ``ContentStoreError/unavailable(_:)`` when everything was not listed yet.
    public func contents(of image: StoredImage) async throws -> [ContentInfo] {
        try requireIndex()
        return state.read { $0.index.reachable(from: image.target.digest) }
    }

    private func requireIndex() throws {
        let health = health
        guard health.isIndexed else { throw ContentStoreError.unavailable(health.explanation ?? "not listed yet") }
    }

    /// Subscribes to changes. The first snapshot comes when everything was listed once.
    public func events() -> ContentEvents { state.hub.subscribe() }

    // MARK: Writing

    /// Begins to write content into containerd.
    ///
    /// The write holds a lease, which protects it from garbage collection. Committed content has the label
    /// `containerd.io/gc.root` and stays until ``remove(_:)``.
    ///
    /// - Throws: ``ContentStoreError/tooManyWriters(limit:)``, ``ContentStoreError/unavailable(_:)`` and containerd's
    ///   errors of space and permissions. containerd stores sha256 digests only.
    public func beginWrite(_ digest: Digest, size: Int64?) async throws -> any ContentWriter {
        guard digest.algorithm == .sha256 else {
            throw ContentStoreError.unavailable("containerd stores content by sha256 digests only, not \(digest)")
        }
        let session = try state.connectedSession()
        let permit = try writers.acquire()
        return try await asStoreError {
            try await ContainerdContentWriter.begin(digest, size: size, session: session, permit: permit)
        }
    }

    /// Makes `reference` name `target`, as an image of containerd.
    ///
    /// - Throws: ``ContentStoreError/absent(_:)``, ``ContentStoreError/untaggable(_:)``,
    ///   ``ContentStoreError/unavailable(_:)``.
    public func tag(_ target: Descriptor, as reference: Reference) async throws {
        guard reference.tag != nil || reference.digest != nil else { throw ContentStoreError.untaggable(reference) }
        let session = try state.connectedSession()
        try await asStoreError {
            guard let content = try await session.client.contentInfo(target.digest) else {
                throw ContentStoreError.absent(target.digest)
            }
            let descriptor = Descriptor(mediaType: target.mediaType, digest: target.digest, size: content.size)
            let name = reference.description
            try await session.client.setImage(ContainerdImage(name: name, target: descriptor))
            try await session.refresh(images: [name])
        }
    }

    /// Removes a name. containerd collects content without other references then, unless this store wrote it.
    ///
    /// - Throws: ``ContentStoreError/unavailable(_:)``.
    public func untag(_ reference: Reference) async throws {
        let session = try state.connectedSession()
        try await asStoreError {
            try await session.client.deleteImage(named: reference.description)
            try await session.refresh(images: [reference.description])
        }
    }

    /// Removes content from containerd's namespace.
    ///
    /// - Throws: ``ContentStoreError/unavailable(_:)``.
    public func remove(_ digest: Digest) async throws {
        let session = try state.connectedSession()
        try await asStoreError {
            try await session.client.deleteContent(digest)
            try await session.refresh(contents: [digest])
        }
    }
}
