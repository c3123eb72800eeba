import ContainerdTestKit
import ContentStore
import ContentStoreConformance
import Foundation
import NIOCore
import OCIDistribution
import TestSupport
import Testing

@testable import ContainerdContentStore

/// What goes wrong at one place harms nothing else.
@Suite(.timeLimit(.minutes(20))) struct CorruptionTests {
    @Test func aBlobThatContainerdCannotReadIsSkipped() async throws {
        let scene = try await Scene.start(mounted: false)
        var sample = SampleContent(seed: 81)
        let image = sample.image()
        try await scene.load([("quay.io/a/app:1", image.manifest.descriptor)], image.blobs)
        try await scene.advertised.until("all is reported") { $0.digests.isSuperset(of: image.digests) }
        await scene.store.shutdown()

        let damaged = image.layers[0].digest
        let file = "\(scene.daemon.contentPath)/blobs/sha256/\(damaged.hex)"
        try FileManager.default.removeItem(atPath: file)
        try FileManager.default.createDirectory(atPath: file, withIntermediateDirectories: false)
        let client = try ContainerdClient(
            socketPath: scene.daemon.socketPath, namespace: "k8s.io", callTimeout: .seconds(60))
        let running = Task { try await client.run() }
        #expect(try await client.contentInfo(damaged) != nil)
        await #expect(throws: (any Error).self) { _ = try await client.readContent(damaged, offset: 0, count: 64) }
        client.shutdown()
        try? await running.value
        let store = makeStore(scene.daemon, contentPath: "/nonexistent/content")
        try await store.start()
        try await store.waitUntilIndexed()
        #expect(try await store.info(damaged) == nil)
        for digest in image.digests.subtracting([damaged]) { #expect(try await store.info(digest) != nil) }
        // The connection lasts, and later changes are reported.
        let advertised = Advertised(store)
        let next = sample.image()
        try await scene.load([("quay.io/a/next:1", next.manifest.descriptor)], next.blobs)
        try await advertised.until("the next image is reported") { $0.digests.isSuperset(of: next.digests) }
        #expect(store.health.lostConnections == 0)
        await store.shutdown()
        try await scene.finish()
    }

    @Test func aRefusedNamespaceDoesNotResetTheBackoff() async throws {
        let daemon = try await ContainerdDaemon.start()
        let store = makeStore(daemon, namespace: "not/a/namespace") { $0.maximumBackoff = .milliseconds(50) }
        try await store.start()
        _ = try await eventually("some attempts") { () -> Bool? in
            guard case .disconnected = store.health.connection else { return nil }
            return store.health.lostConnections >= 3 ? true : nil
        }
        #expect(store.health.reconciliations == 0 && !store.health.isIndexed)
        await store.shutdown()
        try await daemon.stop(SIGKILL)
    }

    @Test func onlyAListingResetsTheBackoff() {
        var generator = SeededGenerator(state: 82)
        var history = ConnectionHistory(initialBackoff: .milliseconds(50), maximumBackoff: .seconds(1))
        func ended(_ reason: String, connected: Bool = true, listed: Bool = false) -> (shouldLog: Bool, wait: Duration)
        {
            history.ended(reason: reason, wasConnected: connected, madeProgress: listed, using: &generator)
        }
        #expect(ended("no socket", connected: false).shouldLog)
        #expect(!history.failedAfterConnect)
        #expect(ended("refused").shouldLog)
        #expect(history.failedAfterConnect)
        for _ in 0..<10 { #expect(!ended("refused").shouldLog) }
        #expect(ended("refused").wait >= .milliseconds(500))
        let lost = ended("refused", listed: true)
        #expect(lost.shouldLog && lost.wait <= .milliseconds(50) && !history.failedAfterConnect)
        #expect(!ended("refused", connected: false).shouldLog)
    }

    @Test func aListingHasALimit() throws {
        let client = try ContainerdClient(socketPath: "/nonexistent", namespace: "x", callTimeout: .seconds(2))
        #expect(client.listing.timeout == .seconds(40))
    }

    // MARK: Writing

    @Test func aCancelledWriteLeavesNothing() async throws {
        let scene = try await Scene.start()
        try await scene.daemon.ctr("namespaces", "create", "k8s.io")
        var sample = SampleContent(seed: 83)
        let layer = sample.layer(size: 100_000)
        let writer = try await scene.store.beginWrite(layer.digest, size: nil)
        try await writer.append(ByteBuffer(bytes: layer.bytes[..<50_000]))
        #expect(try await scene.daemon.ingests().count == 1)
        let task = Task {
            while !Task.isCancelled { await Task.yield() }
            await writer.abort()
        }
        task.cancel()
        await task.value
        // Done when it returns, not some time later.
        #expect(try await scene.daemon.ingests().isEmpty)
        #expect(try await scene.daemon.ctr("leases", "ls", "-q").isEmpty)
        try await scene.finish()
    }

    @Test func whatExistsAlreadyIsSparedByGarbageCollectionToo() async throws {
        let scene = try await Scene.start()
        var sample = SampleContent(seed: 84)
        let image = sample.image()
        try await scene.load([("quay.io/a/app:1", image.manifest.descriptor)], image.blobs)
        let layer = image.layers[0]
        let info = try await scene.store.write(ByteBuffer(bytes: layer.bytes), as: layer.digest)
        #expect(info.digest == layer.digest)
        try await scene.store.write(ByteBuffer(bytes: image.manifest.bytes), as: image.manifest.digest)
        try await scene.daemon.ctr("images", "rm", "--sync", "quay.io/a/app:1")
        // The manifest holds all of the image.
        #expect(try await scene.daemon.listedDigests() == Set(image.digests.map(\.description)))
        #expect(try await scene.daemon.ingests().isEmpty)
        #expect(try await scene.daemon.ctr("leases", "ls", "-q").isEmpty)
        let labels = try await scene.daemon.ctr("content", "ls")
        let line = try #require(labels.split(separator: "\n").first { $0.hasPrefix(layer.digest.description) })
        #expect(line.contains("containerd.io/gc.root="))
        try await scene.store.remove(image.manifest.digest)
        try await scene.store.remove(layer.digest)
        try await scene.finish()
    }

    @Test func labellingAbsentContentReturnsFalse() async throws {
        let scene = try await Scene.start()
        let client = try ContainerdClient(
            socketPath: scene.daemon.socketPath, namespace: "k8s.io", callTimeout: .seconds(60))
        let running = Task { try await client.run() }
        var sample = SampleContent(seed: 85)
        let image = sample.image()
        try await scene.load([("quay.io/a/app:1", image.manifest.descriptor)], image.blobs)
        #expect(try await client.label(image.layers[0].digest, with: ["containerd.io/gc.root": "now", "a": "b"]))
        #expect(try await !client.label(sample.layer().digest, with: ["containerd.io/gc.root": "now"]))
        client.shutdown()
        try? await running.value
        try await scene.finish()
    }
}
