import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution

/// A store in memory, for tests and for programs that hold little content. All answers are immediate.
public final class InMemoryContentStore: WritableContentStore {
    struct State {
        var index = ContentIndex()
        var bytes: [Digest: ByteBuffer] = [:]
        /// Bytes held by unfinished writers.
        var pendingBytes: Int64 = 0
        var writers = 0
        var arriving = ArrivingWriters<InMemoryContentWriter>()
    }

    /// How many bytes of content the store holds at most, unfinished writes included.
    public let capacity: Int64
    /// Most writers at the same time.
    public let writerLimit: Int
    let state: NIOLockedValueBox<State>
    private let hub: ContentEventHub

    /// Creates an empty store.
    ///
    /// - Parameters:
    ///   - capacity: how many bytes of content the store holds at most.
    ///   - writerLimit: most writers at the same time.
    ///   - eventBufferLimit: how many events are kept for a slow subscriber before it gets a new snapshot instead.
    public init(capacity: Int64 = 256 << 20, writerLimit: Int = 64, eventBufferLimit: Int = 4096) {
        let state = NIOLockedValueBox(State())
        self.capacity = capacity
        self.writerLimit = max(1, writerLimit)
        self.state = state
        self.hub = ContentEventHub(bufferLimit: eventBufferLimit) { deliver in
            state.withLockedValue { deliver($0.index.snapshot) }
        }
    }

    deinit { hub.finish() }

    // MARK: Reading

    /// Finds what a reference names.
    public func resolve(_ reference: Reference) async throws -> Descriptor? { resolveImmediately(reference).value }

    /// Describes content.
    public func info(_ digest: Digest) async throws -> ContentInfo? { infoImmediately(digest).value }

    /// Opens content; its body is ``OpenContent/Body/bytes(_:)``.
    public func open(_ digest: Digest) async throws -> OpenContent? { openImmediately(digest).value }

    /// Lists the images, sorted by name.
    public func images() async throws -> [StoredImage] { state.withLockedValue { $0.index.images } }

    /// Lists an image's content.
    public func contents(of image: StoredImage) async throws -> [ContentInfo] {
        state.withLockedValue { $0.index.reachable(from: image.target.digest) }
    }

    /// Subscribes to changes.
    public func events() -> ContentEvents { hub.subscribe() }

    /// Finds what a reference names; never ``ImmediateAnswer/unknown``.
    public func resolveImmediately(_ reference: Reference) -> ImmediateAnswer<Descriptor> {
        ImmediateAnswer(known: state.withLockedValue { $0.index.resolve(reference) })
    }

    /// Describes content; never ``ImmediateAnswer/unknown``.
    public func infoImmediately(_ digest: Digest) -> ImmediateAnswer<ContentInfo> {
        ImmediateAnswer(known: state.withLockedValue { $0.index.info(digest) })
    }

    /// Opens content; never ``ImmediateAnswer/unknown``.
    public func openImmediately(_ digest: Digest) -> ImmediateAnswer<OpenContent> {
        ImmediateAnswer(
            known: state.withLockedValue { state in
                guard let info = state.index.info(digest), let bytes = state.bytes[digest] else { return nil }
                return OpenContent(info: info, body: .bytes(bytes))
            })
    }

    // MARK: Writing

    /// Begins to write content.
    ///
    /// - Throws: ``ContentStoreError/tooManyWriters(limit:)``, ``ContentStoreError/noSpace(_:)``.
    public func beginWrite(_ digest: Digest, size: Int64?) async throws -> any ContentWriter {
        try state.withLockedValue { state in
            guard state.writers < writerLimit else { throw ContentStoreError.tooManyWriters(limit: writerLimit) }
            if let size, size > capacity - state.index.contentBytes { throw outOfSpace }
            state.writers += 1
        }
        let writer = InMemoryContentWriter(store: self, digest: digest, size: size)
        state.withLockedValue { $0.arriving.add(writer, of: digest) }
        return writer
    }

    /// Opens content that a writer of this store is adding.
    public func openArriving(_ digest: Digest) async throws -> ArrivingContent? {
        let writers = state.withLockedValue { state in
            state.index.info(digest) == nil ? state.arriving.all(of: digest) : []
        }
        return writers.lazy.compactMap(\.arriving).first
    }

    /// Makes a reference name content that is present.
    ///
    /// - Throws: ``ContentStoreError/absent(_:)``, ``ContentStoreError/untaggable(_:)``.
    public func tag(_ target: Descriptor, as reference: Reference) async throws {
        guard reference.tag != nil || reference.digest != nil else { throw ContentStoreError.untaggable(reference) }
        try change { state, events in
            guard let info = state.index.info(target.digest) else { throw ContentStoreError.absent(target.digest) }
            var target = target
            target.size = info.size
            state.index.setImage(StoredImage(reference: reference, target: target), events: &events)
        }
    }

    /// Removes a name.
    public func untag(_ reference: Reference) async throws {
        change { state, events in state.index.removeImage(reference, events: &events) }
    }

    /// Removes content.
    public func remove(_ digest: Digest) async throws {
        change { state, events in
            state.bytes[digest] = nil
            state.index.removeContent(digest, events: &events)
        }
    }

    /// Adds content in one call.
    ///
    /// - Returns: its digest.
    /// - Throws: ``ContentStoreError/noSpace(_:)``.
    @discardableResult
    public func add(_ bytes: [UInt8], algorithm: DigestAlgorithm = .sha256) throws -> Digest {
        let digest = Digest.hash(algorithm, of: bytes)
        _ = try insert(ByteBuffer(bytes: bytes), as: digest, pending: 0)
        return digest
    }

    var outOfSpace: ContentStoreError { .noSpace("the in-memory store holds at most \(capacity) bytes") }

    /// Adds verified content, of which `pending` bytes were counted for a writer.
    func insert(_ bytes: ByteBuffer, as digest: Digest, pending: Int64) throws -> ContentInfo {
        let summary =
            Int64(bytes.readableBytes) <= ManifestSummary.sizeLimit
            ? ManifestSummary(bytes.readableBytesView) : nil
        return try change { state, events in
            let size = Int64(bytes.readableBytes)
            if state.bytes[digest] == nil {
                guard size - pending <= capacity - state.index.contentBytes - state.pendingBytes else {
                    throw outOfSpace
                }
                state.bytes[digest] = bytes
            }
            state.index.setContent(
                digest, size: size, mediaType: summary?.mediaType ?? .octetStream,
                children: summary?.references ?? [], events: &events)
            return state.index.info(digest)
                ?? ContentInfo(digest: digest, size: size, mediaType: summary?.mediaType ?? .octetStream)
        }
    }

    /// Changes the state and publishes the events, under one lock.
    private func change<R>(_ body: (inout State, inout [ContentEvent]) throws -> R) rethrows -> R {
        try state.withLockedValue { state in
            var events: [ContentEvent] = []
            defer { hub.publish(events) }
            return try body(&state, &events)
        }
    }
}

extension ImmediateAnswer {
    /// The answer of a store that never has to wait.
    package init(known value: Value?) {
        if let value { self = .found(value) } else { self = .absent }
    }
}

/// A writer that collects bytes in memory.
final class InMemoryContentWriter: ContentWriter {
    private struct Progress {
        var bytes = ByteBuffer()
        var isOpen = true
        /// The whole content, from its commit on.
        var committed: ByteBuffer?
    }

    private let store: InMemoryContentStore
    private let digest: Digest
    private let size: Int64?
    private let progress = NIOLockedValueBox(Progress())

    init(store: InMemoryContentStore, digest: Digest, size: Int64?) {
        self.store = store
        self.digest = digest
        self.size = size
    }

    deinit { close() }

    /// What has been written of content of known size; nil when the writer has ended.
    var arriving: ArrivingContent? {
        guard let size, progress.withLockedValue({ $0.isOpen }) else { return nil }
        return ArrivingContent(digest: digest, size: size, source: Arriving(progress: progress, size: size))
    }

    private struct Arriving: ArrivingSource {
        let progress: NIOLockedValueBox<Progress>
        let size: Int64

        var status: ArrivingContent.Status {
            progress.withLockedValue { progress in
                if progress.committed != nil { return .complete }
                guard progress.isOpen else { return .failed }
                let count = Int64(progress.bytes.readableBytes)
                return count < size ? .arriving(bytes: count) : .complete
            }
        }

        func read(at offset: Int64, count: Int) -> ByteBuffer {
            progress.withLockedValue { progress in
                let bytes = progress.committed ?? progress.bytes
                let length = min(count, max(0, bytes.readableBytes - Int(offset)))
                // A copy: a slice would make the writer copy everything at its next append.
                guard length > 0, let slice = bytes.getSlice(at: bytes.readerIndex + Int(offset), length: length) else {
                    return ByteBuffer()
                }
                return ByteBuffer(bytes: slice.readableBytesView)
            }
        }
    }

    var offset: Int64 { progress.withLockedValue { Int64($0.bytes.readableBytes) } }

    func append(_ bytes: ByteBuffer) async throws {
        try progress.withLockedValue { progress in
            guard progress.isOpen else { throw ContentStoreError.writerClosed }
            let (total, overflow) = Int64(progress.bytes.readableBytes)
                .addingReportingOverflow(Int64(bytes.readableBytes))
            if let size, overflow || total > size {
                throw ContentStoreError.sizeMismatch(digest, expected: size, actual: total)
            }
            try store.state.withLockedValue { state in
                guard Int64(bytes.readableBytes) <= store.capacity - state.index.contentBytes - state.pendingBytes
                else { throw store.outOfSpace }
                state.pendingBytes += Int64(bytes.readableBytes)
            }
            progress.bytes.writeImmutableBuffer(bytes)
        }
    }

    func commit() async throws -> ContentInfo {
        let bytes = try progress.withLockedValue { progress in
            guard progress.isOpen else { throw ContentStoreError.writerClosed }
            return progress.bytes
        }
        defer { close() }
        let length = Int64(bytes.readableBytes)
        if let size, length != size {
            throw ContentStoreError.sizeMismatch(digest, expected: size, actual: length)
        }
        let actual = bytes.withUnsafeReadableBytes { Digest.hash(digest.algorithm, of: $0) }
        guard actual == digest else { throw ContentStoreError.digestMismatch(expected: digest, actual: actual) }
        let info = try store.insert(bytes, as: digest, pending: length)
        // The same storage as the store's.
        progress.withLockedValue { $0.committed = bytes }
        return info
    }

    func abort() async { close() }

    private func close() {
        let length = progress.withLockedValue { progress -> Int64? in
            guard progress.isOpen else { return nil }
            progress.isOpen = false
            defer { progress.bytes = ByteBuffer() }
            return Int64(progress.bytes.readableBytes)
        }
        guard let length else { return }
        store.state.withLockedValue { state in
            state.writers -= 1
            state.pendingBytes -= length
            state.arriving.remove(ObjectIdentifier(self), of: digest)
        }
    }
}
