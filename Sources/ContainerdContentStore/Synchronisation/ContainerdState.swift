import ContentStore
import Logging
import Metrics
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution

/// The state of a ``ContainerdContentStore``, behind one lock, and its subscribers.
final class ContainerdState: Sendable {
    struct Storage {
        var index = ContentIndex()
        var health = ContainerdHealth()
        var session: ContainerdSession?
        /// Non-nil when blobs can be opened as files.
        var directory: BlobDirectory?
        var manifests: ManifestCache
    }

    /// What is needed to open content.
    struct Located {
        var info: ContentInfo
        var directory: BlobDirectory?
        /// A manifest's bytes, when they are in memory.
        var bytes: ByteBuffer?
        /// Whether the bytes should be brought into memory; the caller then calls ``warmed(_:_:)`` once.
        var shouldWarm: Bool
    }

    let configuration: ContainerdConfiguration
    let logger: Logger
    let hub: ContentEventHub
    let metrics: ContainerdMetrics
    private let storage: NIOLockedValueBox<Storage>

    init(configuration: ContainerdConfiguration, metricsFactory: any MetricsFactory, logger: Logger) {
        let storage = NIOLockedValueBox(
            Storage(manifests: ManifestCache(capacity: configuration.manifestCacheCapacity)))
        self.configuration = configuration
        self.logger = logger
        self.storage = storage
        self.metrics = ContainerdMetrics(factory: metricsFactory)
        self.hub = ContentEventHub(bufferLimit: configuration.eventBufferLimit) { deliver in
            storage.withLockedValue { if $0.health.isIndexed { deliver($0.index.snapshot) } }
        }
    }

    /// Reads the state.
    func read<R>(_ body: (borrowing Storage) throws -> R) rethrows -> R {
        try storage.withLockedValue { try body($0) }
    }

    /// Finds content, and a manifest's bytes when they are in memory.
    func locate(_ digest: Digest) -> ImmediateAnswer<Located> {
        storage.withLockedValue { storage in
            guard let info = storage.index.info(digest) else {
                return storage.health.isIndexed ? .absent : .unknown
            }
            let bytes = info.mediaType.isManifest ? storage.manifests.bytes(digest) : nil
            let shouldWarm =
                info.mediaType.isManifest && bytes == nil
                && storage.manifests.beginWarming(digest, size: info.size)
            return .found(
                Located(info: info, directory: storage.directory, bytes: bytes, shouldWarm: shouldWarm))
        }
    }

    /// Ends the reading of a manifest into memory that ``locate(_:)`` requested.
    ///
    /// - Parameter bytes: verified; nil when they could not be read.
    func warmed(_ digest: Digest, _ bytes: ByteBuffer?) {
        storage.withLockedValue { storage in
            storage.manifests.endWarming(digest)
            if let bytes, storage.index.info(digest) != nil { storage.manifests.insert(bytes, for: digest) }
        }
    }

    /// Changes the index and publishes the events, under one lock.
    func change<R>(_ body: (inout ContentIndex, inout [ContentEvent]) throws -> R) rethrows -> R {
        try storage.withLockedValue { storage in
            var events: [ContentEvent] = []
            defer {
                storage.health.images = storage.index.imageCount
                storage.health.contents = storage.index.contentCount
                storage.health.contentBytes = storage.index.contentBytes
                for case .contentRemoved(let digest) in events { storage.manifests.remove(digest) }
                metrics.record(storage.health)
                // A subscriber gets nothing before the first complete listing, then a snapshot.
                if storage.health.isIndexed { hub.publish(events) }
            }
            return try body(&storage.index, &events)
        }
    }

    /// Changes the state of the connection.
    func update<R>(_ body: (inout Storage) -> R) -> R {
        storage.withLockedValue { storage in
            let wasIndexed = storage.health.isIndexed
            let result = body(&storage)
            metrics.record(storage.health)
            if storage.health.isIndexed, !wasIndexed { hub.invalidate() }
            return result
        }
    }

    /// The current connection.
    ///
    /// - Throws: ``ContentStoreError/unavailable(_:)`` when there is none.
    func connectedSession() throws(ContentStoreError) -> ContainerdSession {
        let (session, reason) = read { ($0.session, $0.health.explanation) }
        guard let session else { throw .unavailable(reason ?? "not connected to containerd") }
        return session
    }
}
