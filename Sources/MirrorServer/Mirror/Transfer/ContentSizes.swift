import ContentStore
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution

/// The sizes of content that verified manifests name: a peer that states another one is rejected before its first byte.
///
/// A manifest may lie about content that it does not own. So a size that two manifests disagree on is not known.
final class ContentSizes: Sendable {
    /// Most sizes kept, some 64 bytes each; beyond it the older half is dropped.
    static let limit = 16_384
    /// Most manifests of the store's first snapshot that are read; later ones are read as they are added.
    static let snapshotLimit = 2048

    private struct State {
        /// Nil for a size that is disputed.
        var recent: [Digest: Int64?] = [:]
        var older: [Digest: Int64?] = [:]
    }

    private let state = NIOLockedValueBox(State())

    /// The size of content in bytes; nil when it is not known.
    func size(of digest: Digest) -> Int64? {
        state.withLockedValue { state in (state.recent[digest] ?? state.older[digest]) ?? nil }
    }

    /// Records what a verified manifest refers to. Documents that are no manifest are ignored.
    func record(manifest json: some Collection<UInt8>) {
        guard json.count <= Manifest.maximumSize, let manifest = try? Manifest.decode(from: json) else { return }
        record(manifest.references + (manifest.subject.map { [$0] } ?? []))
    }

    func record(_ descriptors: [Descriptor]) {
        state.withLockedValue { state in
            for descriptor in descriptors where descriptor.size >= 0 {
                let known = state.recent[descriptor.digest] ?? state.older[descriptor.digest]
                if state.recent.count >= Self.limit / 2 { (state.older, state.recent) = (state.recent, [:]) }
                if let known, known != descriptor.size {
                    state.recent[descriptor.digest] = .some(nil)
                } else {
                    state.recent[descriptor.digest] = .some(descriptor.size)
                }
            }
        }
    }

    /// Records the manifests of a store as they are added, until the task is cancelled.
    func follow(_ store: any ContentStore) async {
        var (isSnapshot, read) = (true, 0)
        for await event in store.events() {
            switch event {
            case .snapshotStarted: isSnapshot = true
            case .snapshotComplete: isSnapshot = false
            case .contentAdded(let info)
            where info.mediaType.isManifest && info.size <= Manifest.maximumSize:
                if isSnapshot {
                    guard read < Self.snapshotLimit else { continue }
                    read += 1
                }
                guard let content = try? await store.open(info.digest), let bytes = try? await content.bytes() else {
                    continue
                }
                record(manifest: bytes)
            default: break
            }
        }
    }
}

extension OpenContent {
    /// All bytes of small content.
    fileprivate func bytes() async throws -> ByteBufferView {
        var whole = ByteBuffer()
        for try await chunk in read() { whole.writeImmutableBuffer(chunk) }
        return whole.readableBytesView
    }
}
