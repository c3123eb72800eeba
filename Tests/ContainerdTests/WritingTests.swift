import ContainerdTestKit
import ContentStore
import ContentStoreConformance
import Foundation
import Logging
import NIOCore
import OCIDistribution
import TestSupport
import Testing

@testable import ContainerdContentStore

/// What is written into containerd stays there, and what is not finished does not. (What every writable store must do is in
/// the conformance suite.)
@Suite(.timeLimit(.minutes(20))) struct WritingTests {
    @Test func writtenContentSurvivesGarbageCollectionAndTheLeaseIsDeleted() async throws {
        let scene = try await Scene.start()
        try await scene.daemon.ctr("namespaces", "create", "k8s.io")
        var sample = SampleContent(seed: 41)
        let image = sample.image(layers: [sample.layer(size: 3 << 20), sample.layer()])
        let decoy = sample.image()
        try await scene.load([("quay.io/a/decoy:1", decoy.manifest.descriptor)], decoy.blobs)

        let layer = image.layers[0]
        let writer = try await scene.store.beginWrite(layer.digest, size: Int64(layer.bytes.count))
        try await writer.append(ByteBuffer(bytes: layer.bytes[..<(1 << 20)]))
        #expect(try await scene.daemon.ctr("leases", "ls", "-q").split(separator: "\n").count == 1)
        // Garbage collection runs while the ingest is under way.
        try await scene.daemon.ctr("images", "rm", "--sync", "quay.io/a/decoy:1")
        try await writer.append(ByteBuffer(bytes: layer.bytes[(1 << 20)...]))
        #expect(writer.offset == Int64(layer.bytes.count))
        let info = try await writer.commit()
        #expect(info.digest == layer.digest && info.size == Int64(layer.bytes.count))
        for blob in image.blobs.filter({ $0.digest != layer.digest }) {
            try await scene.store.write(ByteBuffer(bytes: blob.bytes), as: blob.digest)
        }
        #expect(try await scene.daemon.ctr("leases", "ls", "-q").isEmpty)
        #expect(try await scene.daemon.ingests().isEmpty)

        // And again when all is committed but no image leads to it.
        try await scene.load([("quay.io/a/decoy:2", decoy.manifest.descriptor)], decoy.blobs)
        try await scene.daemon.ctr("images", "rm", "--sync", "quay.io/a/decoy:2")
        #expect(try await scene.daemon.listedDigests().isSuperset(of: image.digests.map(\.description)))

        let reference = try reference("quay.io/a/written:1")
        try await scene.store.tag(image.manifest.descriptor, as: reference)
        #expect(scene.store.resolveImmediately(reference).value?.digest == image.manifest.digest)
        // Another program can use it: containerd checks every byte when it exports.
        try await scene.daemon.ctr(
            "images", "export", "--all-platforms", "\(scene.daemon.path)/out.tar", "quay.io/a/written:1")
        let labels = try await scene.daemon.ctr("content", "ls")
        let line = try #require(
            labels.split(separator: "\n").first { $0.hasPrefix(image.manifest.digest.description) })
        for child in [image.config] + image.layers { #expect(line.contains(child.digest.description)) }
        try await scene.finish()
    }

    @Test func abortedWritesLeaveNothing() async throws {
        let scene = try await Scene.start()
        try await scene.daemon.ctr("namespaces", "create", "k8s.io")
        var sample = SampleContent(seed: 42)
        let layer = sample.layer(size: 100_000)
        let aborted = try await scene.store.beginWrite(layer.digest, size: nil)
        try await aborted.append(ByteBuffer(bytes: layer.bytes[..<50_000]))
        await aborted.abort()
        await #expect(throws: ContentStoreError.writerClosed) { try await aborted.append(ByteBuffer()) }
        do {
            let released = try await scene.store.beginWrite(layer.digest, size: nil)
            try await released.append(ByteBuffer(bytes: layer.bytes[..<50_000]))
        }
        let wrong = try await scene.store.beginWrite(layer.digest, size: nil)
        try await wrong.append(ByteBuffer(bytes: layer.bytes[..<50_000]))
        await #expect(throws: ContentStoreError.self) { _ = try await wrong.commit() }
        _ = try await eventually("nothing is left") {
            let ingests = try await scene.daemon.ingests()
            let leases = try await scene.daemon.ctr("leases", "ls", "-q")
            return ingests.isEmpty && leases.isEmpty ? true : nil
        }
        #expect(try await scene.daemon.listedDigests().isEmpty)
        try await scene.finish()
    }

    @Test func theNumberOfWritersIsLimited() async throws {
        let daemon = try await ContainerdDaemon.start()
        var configuration = ContainerdConfiguration(socketPath: daemon.socketPath)
        configuration.writerLimit = 2
        let store = ContainerdContentStore(configuration: configuration, logger: .init(label: "limited"))
        try await store.start()
        try await store.waitUntilIndexed()
        var sample = SampleContent(seed: 43)
        let first = try await store.beginWrite(sample.layer().digest, size: nil)
        let second = try await store.beginWrite(sample.layer().digest, size: nil)
        let third = sample.layer()
        await #expect(throws: ContentStoreError.tooManyWriters(limit: 2)) {
            _ = try await store.beginWrite(third.digest, size: nil)
        }
        await first.abort()
        let again = try await store.beginWrite(third.digest, size: nil)
        await again.abort()
        await second.abort()
        await store.shutdown()
        try await daemon.stop()
    }

    @Test func contentOfAnotherNamespaceCanBeWritten() async throws {
        let scene = try await Scene.start()
        var sample = SampleContent(seed: 44)
        let image = sample.image()
        try await scene.load([("quay.io/a/app:1", image.manifest.descriptor)], image.blobs, namespace: "moby")
        let layer = image.layers[0]
        let info = try await scene.store.write(ByteBuffer(bytes: layer.bytes), as: layer.digest)
        #expect(info.size == Int64(layer.bytes.count))
        #expect(try await scene.daemon.listedDigests().contains(layer.digest.description))
        try await scene.finish()
    }

    @Test func aTimestampIsWhatContainerdReads() {
        let text = ContainerdContentWriter.timestamp(secondsFromNow: 0)
        #expect(text.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/) != nil, "\(text)")
    }
}
