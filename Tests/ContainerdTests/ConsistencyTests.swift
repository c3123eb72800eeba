import ContainerdContentStore
import ContainerdTestKit
import ContentStore
import ContentStoreConformance
import Foundation
import NIOCore
import OCIDistribution
import TestSupport
import Testing

/// The store stays consistent with containerd while it changes.
@Suite(.timeLimit(.minutes(20))) struct ConsistencyTests {
    @Test(arguments: [true, false])
    func aPullInProgressTellsEachLayerAsSoonAsItIsCommitted(mounted: Bool) async throws {
        let scene = try await Scene.start(mounted: mounted)
        let registry = try await LoopbackRegistry.start()
        var sample = SampleContent(seed: 1)
        let layers = [sample.layer(size: 50_000), sample.layer(size: 60_000), sample.layer(size: 70_000)]
        let image = sample.image(layers: layers)
        registry.add(image.blobs, repository: "team/app", tag: "v1", target: image.manifest.digest)
        registry.hold([layers[2].digest])

        let name = "\(registry.host)/team/app:v1"
        let pull = try await scene.daemon.startCtr(
            label: "fetch", "content", "fetch", "--plain-http", "--all-platforms", name)
        try await scene.advertised.until("everything but the held layer is reported") {
            $0.digests == image.digests.subtracting([layers[2].digest])
        }
        #expect(pull.isRunning)
        #expect(try await scene.store.images().isEmpty)
        #expect(try await scene.store.info(layers[2].digest) == nil)
        // Where it comes from is known before there is an image, because filters need it. containerd's label has the
        // registry without its port.
        let host = try #require(registry.host.split(separator: ":").first.map(String.init))
        _ = try await eventually("the source is known") {
            let sources = try await scene.store.info(layers[0].digest)?.sources
            return sources == [ContentSource(registry: host, repository: "team/app")] ? true : nil
        }

        registry.release([layers[2].digest])
        #expect(try await pull.wait() == .exited(0), "\(pull.errors)")
        let reference = try reference(name)
        try await scene.advertised.until("the image and all its content are reported") {
            $0.digests == image.digests && $0.images[reference] == image.manifest.digest
        }
        #expect(try await scene.store.resolve(reference)?.digest == image.manifest.digest)
        try await registry.stop()
        try await scene.finish()
    }

    @Test(arguments: [true, false])
    func absentPlatformsAreNotTold(mounted: Bool) async throws {
        let scene = try await Scene.start(mounted: mounted)
        let registry = try await LoopbackRegistry.start()
        var sample = SampleContent(seed: 2)
        let here = sample.image(architecture: "amd64")
        let there = sample.image(architecture: "s390x")
        let index = SampleContent.index([here, there])
        registry.add(here.blobs + there.blobs + [index], repository: "multi", tag: "v1", target: index.digest)

        let name = "\(registry.host)/multi:v1"
        try await scene.daemon.ctr("content", "fetch", "--plain-http", "--platform", "linux/amd64", name)
        try await scene.advertised.until("one platform is reported") {
            $0.images.count == 1 && $0.digests == here.digests.union([index.digest])
        }
        try await scene.untilConsistent()
        let image = try #require(try await scene.store.images().first)
        #expect(
            Set(try await scene.store.contents(of: image).map(\.digest)) == here.digests.union([index.digest]))
        #expect(scene.advertised.state.everAdded.isDisjoint(with: there.digests))

        // The other platform comes later.
        try await scene.daemon.ctr("content", "fetch", "--plain-http", "--platform", "linux/s390x", name)
        try await scene.advertised.until("both platforms are reported") {
            $0.digests == here.digests.union(there.digests).union([index.digest])
        }
        try await registry.stop()
        try await scene.finish()
    }

    @Test(arguments: [true, false])
    func sharedLayersSurviveTheDeletionOfOneImage(mounted: Bool) async throws {
        let scene = try await Scene.start(mounted: mounted)
        var sample = SampleContent(seed: 3)
        let base = sample.layer()
        let first = sample.image(layers: [base, sample.layer()])
        let second = sample.image(layers: [base, sample.layer()])
        try await scene.load(
            [
                ("quay.io/a/first:1", first.manifest.descriptor), ("quay.io/a/second:1", second.manifest.descriptor),
            ], first.blobs + Array(Set(second.blobs).subtracting(first.blobs)))
        try await scene.advertised.until("both are reported") {
            $0.images.count == 2 && $0.digests.isSuperset(of: first.digests.union(second.digests))
        }
        try await scene.daemon.ctr("images", "rm", "--sync", "quay.io/a/first:1")
        let lost = first.digests.subtracting(second.digests)
        try await scene.advertised.until("what only the first had is withdrawn") {
            $0.images.count == 1 && $0.digests.isDisjoint(with: lost)
        }
        try await scene.untilConsistent()
        #expect(scene.advertised.digests.isSuperset(of: second.digests))
        #expect(!scene.advertised.state.everRemoved.contains(base.digest))
        #expect(
            try await scene.store.info(base.digest)?.sources == [
                ContentSource(registry: "quay.io", repository: "a/second")
            ])
        try await scene.finish()
    }

    @Test(arguments: [true, false])
    func contentIsWithdrawnOnlyAfterGarbageCollection(mounted: Bool) async throws {
        var options = ContainerdDaemon.Options()
        options.collectsAtOnce = false
        // Listings are waited for, which nothing but time brings about.
        let scene = try await Scene.start(options, mounted: mounted) { $0.reconciliationInterval = .seconds(1) }
        var sample = SampleContent(seed: 4)
        let (kept, other) = (sample.image(), sample.image())
        try await scene.load([("quay.io/a/kept:1", kept.manifest.descriptor)], kept.blobs)
        try await scene.load([("quay.io/a/other:1", other.manifest.descriptor)], other.blobs)
        try await scene.advertised.until("both are reported") {
            $0.images.count == 2 && $0.digests.isSuperset(of: kept.digests.union(other.digests))
        }
        try await scene.daemon.ctr("images", "rm", "quay.io/a/kept:1")
        try await scene.advertised.until("the name is removed") { $0.images.count == 1 }
        // A later change is reported, and a complete listing has passed, so the deletion was processed.
        let listings = scene.store.health.reconciliations
        _ = try await eventually("two more listings") {
            scene.store.health.reconciliations >= listings + 2 ? true : nil
        }
        #expect(scene.advertised.digests.isSuperset(of: kept.digests))
        let manifest = try #require(try await scene.store.open(kept.manifest.digest))
        #expect(try await bytes(of: manifest) == kept.manifest.bytes)

        // A synchronous deletion runs garbage collection.
        try await scene.daemon.ctr("images", "rm", "--sync", "quay.io/a/other:1")
        try await scene.advertised.until("all is withdrawn") { $0.digests.isEmpty && $0.images.isEmpty }
        try await scene.untilConsistent()
        try await scene.finish()
    }

    @Test func aRetaggedImageResolvesToTheNewDigest() async throws {
        let scene = try await Scene.start()
        var sample = SampleContent(seed: 5)
        let (old, new) = (sample.image(), sample.image())
        let name = "quay.io/a/app:latest"
        try await scene.load([(name, old.manifest.descriptor)], old.blobs)
        let reference = try reference(name)
        try await scene.advertised.until("the first is reported") { $0.images[reference] == old.manifest.digest }
        try await scene.load([("quay.io/a/app:next", new.manifest.descriptor)], new.blobs)
        try await scene.daemon.ctr("images", "tag", "--force", "quay.io/a/app:next", name)
        try await scene.advertised.until("the second is reported") {
            $0.images[reference] == new.manifest.digest && $0.digests.isSuperset(of: new.digests)
        }
        #expect(scene.store.resolveImmediately(reference).value?.digest == new.manifest.digest)
        try await scene.finish()
    }

    @Test(arguments: [true, false])
    func anImportIsSeen(mounted: Bool) async throws {
        let scene = try await Scene.start(mounted: mounted)
        var sample = SampleContent(seed: 6)
        let (amd64, arm64) = (sample.image(), sample.image(architecture: "arm64"))
        let index = SampleContent.index([amd64, arm64])
        let docker = sample.image(docker: true)
        try await scene.load(
            [("quay.io/a/multi:1", index.descriptor), ("docker.io/library/old:1", docker.manifest.descriptor)],
            amd64.blobs + arm64.blobs + [index] + docker.blobs)
        let all = amd64.digests.union(arm64.digests).union(docker.digests).union([index.digest])
        try await scene.advertised.until("everything is reported") {
            $0.images.count == 2 && $0.digests.isSuperset(of: all)
        }
        try await scene.untilConsistent()
        // An import has no source label; the source of all content is the image's name.
        #expect(
            try await scene.store.info(arm64.layers[0].digest)?.sources == [
                ContentSource(registry: "quay.io", repository: "a/multi")
            ])
        #expect(try await scene.store.info(index.digest)?.mediaType == .imageIndex)
        #expect(try await scene.store.info(docker.manifest.digest)?.mediaType == .dockerManifest)
        for blob in amd64.blobs + docker.blobs {
            let content = try #require(try await scene.store.open(blob.digest))
            #expect(try await bytes(of: content) == blob.bytes)
            switch content.body {
            case .file: #expect(mounted)
            case .stream: #expect(!mounted)
            case .bytes: Issue.record("in memory, though it was not asked for before")
            }
        }
        try await scene.finish()
    }

    /// Repeated requests are answered from memory, until containerd removes the content.
    @Test(arguments: [true, false])
    func manifestsInMemoryGoWithTheirContent(mounted: Bool) async throws {
        let scene = try await Scene.start(mounted: mounted)
        var sample = SampleContent(seed: 10)
        let image = sample.image()
        try await scene.load([("quay.io/a/app:1", image.manifest.descriptor)], image.blobs)
        try await scene.advertised.until("it is reported") { $0.digests.isSuperset(of: image.digests) }
        let held = try await eventually("the manifest is in memory") { () -> OpenContent? in
            guard let content = try await scene.store.open(image.manifest.digest) else { return nil }
            if case .bytes = content.body { return content } else { return nil }
        }
        #expect(try await bytes(of: held) == image.manifest.bytes)
        #expect(held.info.mediaType == .imageManifest)
        try await scene.daemon.ctr("images", "rm", "--sync", "quay.io/a/app:1")
        try await scene.advertised.until("it is withdrawn") { $0.digests.isEmpty }
        #expect(try await scene.store.open(image.manifest.digest) == nil)
        try await scene.finish()
    }

    @Test func aTransferFailsWhenItsContentDisappears() async throws {
        var sample = SampleContent(seed: 7)
        let layer = sample.layer(size: 3 << 20)
        let image = sample.image(layers: [layer])
        for mounted in [true, false] {
            let scene = try await Scene.start(mounted: mounted)
            try await scene.load([("quay.io/a/big:1", image.manifest.descriptor)], image.blobs)
            try await scene.advertised.until("it is reported") { $0.digests.isSuperset(of: image.digests) }
            let content = try #require(try await scene.store.open(layer.digest))
            switch content.body {
            case .file(let file):
                let half = try file.read(at: 0, count: 1 << 20)
                try await scene.daemon.ctr("images", "rm", "--sync", "quay.io/a/big:1")
                // A file that is open stays whole.
                let rest = try file.read(at: 1 << 20, count: 2 << 20)
                #expect(Array(half.readableBytesView) + Array(rest.readableBytesView) == layer.bytes)
            case .stream(let stream):
                var received = 0
                let error = await #expect(throws: ContentStoreError.self) {
                    for try await part in stream.open(0..<stream.size) {
                        received += part.readableBytes
                        try await scene.daemon.ctr("images", "rm", "--sync", "quay.io/a/big:1")
                    }
                }
                #expect(error == .absent(layer.digest))
                #expect(received < layer.bytes.count)
            case .bytes: Issue.record("layers are never in memory")
            }
            try await scene.advertised.until("it is withdrawn") { $0.digests.isEmpty }
            #expect(try await scene.store.open(layer.digest) == nil)
            try await scene.finish()
        }
    }

    @Test func otherNamespacesStayInvisible() async throws {
        // Listings are waited for, which nothing but time brings about.
        let scene = try await Scene.start { $0.reconciliationInterval = .seconds(1) }
        var sample = SampleContent(seed: 8)
        let (hidden, shown) = (sample.image(), sample.image())
        try await scene.load([("quay.io/a/hidden:1", hidden.manifest.descriptor)], hidden.blobs, namespace: "moby")
        try await scene.load([("quay.io/a/shown:1", shown.manifest.descriptor)], shown.blobs)
        try await scene.advertised.until("the shown image is reported") { $0.digests.isSuperset(of: shown.digests) }
        // A name that goes is followed by listings.
        try await scene.daemon.ctr("images", "tag", "quay.io/a/shown:1", "quay.io/a/passing:1")
        try await scene.daemon.ctr("images", "rm", "quay.io/a/passing:1")
        try await scene.advertised.until("it has one name") { $0.images.count == 1 }
        let listings = scene.store.health.reconciliations
        _ = try await eventually("two more listings") {
            scene.store.health.reconciliations >= listings + 2 ? true : nil
        }
        // The subscriber may still have the passing name; a hidden one would stay.
        let shownName = try reference("quay.io/a/shown:1")
        try await scene.advertised.until("it has one name still") { Set($0.images.keys) == [shownName] }
        #expect(scene.advertised.state.everAdded.isDisjoint(with: hidden.digests))
        #expect(try await scene.store.open(hidden.layers[0].digest) == nil)
        #expect(try await scene.store.resolve(reference("quay.io/a/hidden:1")) == nil)

        // The same content in both: deleting it in one leaves it in the other, though there is one file.
        try await scene.load([("quay.io/a/shown:1", shown.manifest.descriptor)], shown.blobs, namespace: "moby")
        try await scene.daemon.ctr("images", "rm", "--sync", "quay.io/a/shown:1")
        try await scene.advertised.until("it is withdrawn here") { $0.digests.isEmpty }
        #expect(
            FileManager.default.fileExists(
                atPath: "\(scene.daemon.contentPath)/blobs/sha256/\(shown.manifest.digest.hex)"))
        try await scene.finish()
    }

    @Test func damagedImagesAndArtifactsHideNothing() async throws {
        var options = ContainerdDaemon.Options()
        options.collectsAtOnce = false
        let scene = try await Scene.start(options)
        var sample = SampleContent(seed: 9)
        let good = sample.image()
        let payload = SampleContent.Blob(Array("chart".utf8), mediaType: MediaType("application/vnd.cncf.helm.chart"))
        let empty = SampleContent.Blob(Array("{}".utf8), mediaType: .empty)
        let artifact = SampleContent.manifest(config: empty, layers: [payload])
        let broken = SampleContent.Blob(Array(#"{"schemaVersion":2,"layers":"none"#.utf8), mediaType: .imageManifest)
        let client = try ContainerdClient(
            socketPath: scene.daemon.socketPath, namespace: "k8s.io", callTimeout: .seconds(60))
        let running = Task { try await client.run() }
        let absent = sample.layer()
        try await client.setImage(ContainerdImage(name: "quay.io/a/absent:1", target: absent.descriptor))
        try await client.setImage(ContainerdImage(name: "no registry", target: absent.descriptor))
        try await scene.load(
            [("quay.io/a/good:1", good.manifest.descriptor), ("ghcr.io/a/chart:1", artifact.descriptor)],
            good.blobs + [artifact, payload, empty])
        let file = "\(scene.daemon.path)/broken"
        try Data(broken.bytes).write(to: URL(fileURLWithPath: file))
        let ctr = scene.daemon.ctrCommand().joined(separator: " ")
        try await Command.check([
            "sh", "-c",
            "\(ctr) content ingest broken < \(file) && "
                + "\(ctr) content label \(broken.digest) containerd.io/gc.root=x",
        ])
        try await client.setImage(ContainerdImage(name: "quay.io/a/broken:1", target: broken.descriptor))

        let expected = good.digests.union([artifact.digest, payload.digest, empty.digest, broken.digest])
        try await scene.advertised.until("everything that is there is reported") {
            $0.images.count == 4 && $0.digests.isSuperset(of: expected)
        }
        try await scene.untilConsistent()
        #expect(!scene.advertised.digests.contains(absent.digest))
        #expect(try await scene.store.info(broken.digest)?.mediaType == .octetStream)
        #expect(try await scene.store.info(artifact.digest)?.mediaType == .imageManifest)
        client.shutdown()
        try? await running.value
        try await scene.finish()
    }
}
