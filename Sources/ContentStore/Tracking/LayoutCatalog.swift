import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution

/// The content that a store on disk serves: the index, the last known state of each file, and manifests in memory.
///
/// Safe to use from any thread; its lock is never held during a system call.
final class LayoutCatalog: Sendable {
    private struct State {
        var index = ContentIndex()
        var files: [Digest: FileIdentity] = [:]
        var manifests: ManifestCache
        var directories: [DigestAlgorithm: Directory] = [:]

        func location(_ digest: Digest) -> Location? {
            guard let info = index.info(digest), let identity = files[digest],
                let directory = directories[digest.algorithm]
            else { return nil }
            return Location(info: info, identity: identity, directory: directory)
        }
    }

    /// What is needed to open content as a file.
    struct Location: Sendable {
        var info: ContentInfo
        var identity: FileIdentity
        var directory: Directory
    }

    /// Where content is served from.
    enum Source: Sendable {
        case memory(OpenContent)
        /// `shouldWarm`: the caller is to bring the bytes into memory, and to call ``warmed(_:identity:bytes:)`` once.
        case file(Location, shouldWarm: Bool)
    }

    private let state: NIOLockedValueBox<State>
    let hub: ContentEventHub

    init(manifestCacheCapacity: Int, eventBufferLimit: Int) {
        let state = NIOLockedValueBox(State(manifests: ManifestCache(capacity: manifestCacheCapacity)))
        self.state = state
        hub = ContentEventHub(bufferLimit: eventBufferLimit) { deliver in
            state.withLockedValue { deliver($0.index.snapshot) }
        }
    }

    // MARK: Questions

    func info(_ digest: Digest) -> ContentInfo? { state.withLockedValue { $0.index.info(digest) } }

    func resolve(_ reference: Reference) -> Descriptor? { state.withLockedValue { $0.index.resolve(reference) } }

    var images: [StoredImage] { state.withLockedValue { $0.index.images } }

    func reachable(from digest: Digest) -> [ContentInfo] {
        state.withLockedValue { $0.index.reachable(from: digest) }
    }

    var presentDigests: [Digest] { state.withLockedValue { $0.index.presentDigests } }

    func isReferenced(_ digest: Digest) -> Bool { state.withLockedValue { $0.index.isReferenced(digest) } }

    func identity(_ digest: Digest) -> FileIdentity? { state.withLockedValue { $0.files[digest] } }

    func expectedSize(_ digest: Digest) -> Int64? { state.withLockedValue { $0.index.expectedSize(digest) } }

    func directory(_ algorithm: DigestAlgorithm) -> Directory? { state.withLockedValue { $0.directories[algorithm] } }

    var directories: [DigestAlgorithm: Directory] { state.withLockedValue { $0.directories } }

    /// The file of content.
    func location(_ digest: Digest) -> Location? { state.withLockedValue { $0.location(digest) } }

    /// A manifest in memory, or else the file of content.
    func source(_ digest: Digest) -> Source? {
        state.withLockedValue { state in
            if let bytes = state.manifests.bytes(digest), let info = state.index.info(digest) {
                return .memory(OpenContent(info: info, body: .bytes(bytes)))
            }
            guard let location = state.location(digest) else { return nil }
            let info = location.info
            let shouldWarm = info.mediaType.isManifest && state.manifests.beginWarming(digest, size: info.size)
            return .file(location, shouldWarm: shouldWarm)
        }
    }

    // MARK: Changes

    func setDirectories(_ directories: [DigestAlgorithm: Directory]) {
        state.withLockedValue { $0.directories = directories }
    }

    /// Adds content, or changes what is known of it.
    ///
    /// - Parameters:
    ///   - references: what a manifest refers to.
    ///   - bytes: a manifest's verified bytes.
    func set(
        _ digest: Digest, identity: FileIdentity, mediaType: MediaType, references: [Descriptor], bytes: [UInt8]?
    ) {
        change { state, events in
            state.files[digest] = identity
            state.manifests.remove(digest)
            if let bytes, state.manifests.accepts(size: Int64(bytes.count)) {
                state.manifests.insert(ByteBuffer(bytes: bytes), for: digest)
            }
            state.index.setContent(
                digest, size: identity.size, mediaType: mediaType, children: references, events: &events)
        }
    }

    /// Removes content from what is served.
    ///
    /// - Returns: whether it was served.
    @discardableResult
    func remove(_ digest: Digest) -> Bool {
        change { state, events in
            state.manifests.remove(digest)
            guard state.files.removeValue(forKey: digest) != nil else { return false }
            state.index.removeContent(digest, events: &events)
            return true
        }
    }

    /// The number of images that are changed under one hold of the lock.
    private static let imageBatchSize = 4096

    /// Replaces all images, in batches, so that no reader waits for long.
    func setImages(_ targets: [Reference: Descriptor]) {
        let (changed, removed) = state.withLockedValue { state in
            (
                targets.filter { state.index.target(of: $0.key) != $0.value },
                state.index.references.filter { targets[$0] == nil }
            )
        }
        let images = changed.map { StoredImage(reference: $0.key, target: $0.value) }
        for start in stride(from: 0, to: images.count, by: Self.imageBatchSize) {
            let batch = images[start..<min(start + Self.imageBatchSize, images.count)]
            change { $0.index.setImages(batch, events: &$1) }
        }
        for start in stride(from: 0, to: removed.count, by: Self.imageBatchSize) {
            let batch = removed[start..<min(start + Self.imageBatchSize, removed.count)]
            change { $0.index.removeImages(batch, events: &$1) }
        }
    }

    /// Ends bringing a manifest into memory; `bytes` are its verified bytes, if its file was still in that state.
    func warmed(_ digest: Digest, identity: FileIdentity, bytes: [UInt8]?) {
        state.withLockedValue { state in
            state.manifests.endWarming(digest)
            if let bytes, state.files[digest] == identity {
                state.manifests.insert(ByteBuffer(bytes: bytes), for: digest)
            }
        }
    }

    /// Changes the state and publishes the events, under one lock.
    private func change<R>(_ body: (inout State, inout [ContentEvent]) -> R) -> R {
        state.withLockedValue { state in
            var events: [ContentEvent] = []
            defer { hub.publish(events) }
            return body(&state, &events)
        }
    }
}
