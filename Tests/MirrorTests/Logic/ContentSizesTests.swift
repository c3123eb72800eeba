import ContentStore
import NIOCore
import OCIDistribution
import TestSupport
import Testing

@testable import MirrorServer

@Suite(.timeLimit(.minutes(5))) struct ContentSizesTests {
    private let layer = Digest.hash(of: "l".utf8)

    @Test func sizesAreThoseThatAManifestNames() {
        let sizes = ContentSizes()
        #expect(sizes.size(of: layer) == nil)
        sizes.record(manifest: SharedBytes.manifest(7).buffer.readableBytesView)
        #expect(sizes.size(of: layer) == 7)
        #expect(sizes.size(of: Digest.hash(of: "c".utf8)) == 1)
        sizes.record(manifest: Array("no manifest".utf8))
    }

    /// A manifest may lie about content that is not its own.
    @Test func aDisputedSizeIsNotKnown() {
        let sizes = ContentSizes()
        for number in [7, 8, 7] { sizes.record(manifest: SharedBytes.manifest(number).buffer.readableBytesView) }
        #expect(sizes.size(of: layer) == nil)
    }

    @Test func theOlderHalfIsDropped() {
        let sizes = ContentSizes()
        for number in 0..<(ContentSizes.limit * 2) {
            sizes.record([
                Descriptor(mediaType: .octetStream, digest: Digest.hash(of: "\(number)".utf8), size: Int64(number))
            ])
        }
        #expect(sizes.size(of: Digest.hash(of: "0".utf8)) == nil)
        let last = ContentSizes.limit * 2 - 1
        #expect(sizes.size(of: Digest.hash(of: "\(last)".utf8)) == Int64(last))
    }

    @Test func manifestsOfTheStoreAreRead() async throws {
        let store = InMemoryContentStore()
        let first = SharedBytes.manifest(41)
        try await store.write(first.buffer, as: first.digest)
        let sizes = ContentSizes()
        let task = Task { await sizes.follow(store) }
        try await eventually { sizes.size(of: layer) == 41 }
        // Added later, and another one for the same layer.
        try await store.write(SharedBytes.manifest(42).buffer, as: SharedBytes.manifest(42).digest)
        try await eventually { sizes.size(of: layer) == nil }
        task.cancel()
        await task.value
    }
}
