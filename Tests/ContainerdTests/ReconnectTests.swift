import ContainerdContentStore
import ContainerdTestKit
import ContentStore
import ContentStoreConformance
import Foundation
import OCIDistribution
import TestSupport
import Testing

/// containerd comes and goes; the store stays.
@Suite(.timeLimit(.minutes(20))) struct ReconnectTests {
    @Test func servingContinuesWhileContainerdIsStopped() async throws {
        let scene = try await Scene.start()
        var sample = SampleContent(seed: 21)
        let image = sample.image()
        try await scene.load([("quay.io/a/app:1", image.manifest.descriptor)], image.blobs)
        let reference = try reference("quay.io/a/app:1")
        try await scene.advertised.until("it is reported") {
            $0.images.count == 1 && $0.digests.isSuperset(of: image.digests)
        }
        #expect(scene.store.health.isReady)

        try await scene.daemon.stop()
        _ = try await eventually("the loss is noticed") { scene.store.health.isReady ? nil : true }
        let explanation = try #require(scene.store.health.explanation)
        #expect(explanation.contains("containerd"), "\(explanation)")
        #expect(scene.store.resolveImmediately(reference).value?.digest == image.manifest.digest)
        for blob in image.blobs {
            let content = try #require(scene.store.openImmediately(blob.digest).value)
            #expect(try await bytes(of: content) == blob.bytes)
        }
        #expect(try await scene.store.images().count == 1)
        let unknown = sample.layer()
        #expect(try await scene.store.open(unknown.digest) == nil)
        await #expect(throws: ContentStoreError.self) {
            _ = try await scene.store.beginWrite(unknown.digest, size: nil)
        }

        try await scene.daemon.start()
        _ = try await eventually("it is ready again") { scene.store.health.isReady ? true : nil }
        #expect(scene.store.health.lostConnections == 1)
        // Nothing of it was withdrawn (`ctr` itself removes the archive's index), and new changes are reported.
        #expect(scene.advertised.state.everRemoved.isDisjoint(with: image.digests))
        let next = sample.image()
        try await scene.load([("quay.io/a/next:1", next.manifest.descriptor)], next.blobs)
        try await scene.advertised.until("what follows is reported") { $0.digests.isSuperset(of: next.digests) }
        try await scene.untilConsistent()
        try await scene.finish()
    }

    @Test func changesOfAGapAreSeen() async throws {
        let scene = try await Scene.start()
        var sample = SampleContent(seed: 22)
        let (removed, kept, added) = (sample.image(), sample.image(), sample.image())
        try await scene.load([("quay.io/a/removed:1", removed.manifest.descriptor)], removed.blobs)
        try await scene.load([("quay.io/a/kept:1", kept.manifest.descriptor)], kept.blobs)
        try await scene.advertised.until("both are reported") {
            $0.images.count == 2 && $0.digests.isSuperset(of: removed.digests.union(kept.digests))
        }
        // The same containerd, where the store does not look.
        try await scene.daemon.stop()
        let elsewhere = try scene.daemon.withSocket("elsewhere.sock")
        try await elsewhere.start()
        let other = Scene(daemon: elsewhere, store: scene.store, advertised: scene.advertised)
        try await other.load([("quay.io/a/added:1", added.manifest.descriptor)], added.blobs)
        try await elsewhere.ctr("images", "tag", "--force", "quay.io/a/added:1", "quay.io/a/kept:1")
        try await elsewhere.ctr("images", "rm", "--sync", "quay.io/a/removed:1")
        #expect(scene.advertised.state.images.count == 2)
        try await elsewhere.stop()

        try await scene.daemon.start()
        let (keptName, addedName) = (try reference("quay.io/a/kept:1"), try reference("quay.io/a/added:1"))
        try await scene.advertised.until("all changes are reported") {
            $0.images == [keptName: added.manifest.digest, addedName: added.manifest.digest]
        }
        try await scene.untilConsistent()
        #expect(scene.advertised.digests.isDisjoint(with: removed.digests))
        try await scene.finish()
    }

    @Test func aSocketThatIsReplacedByAnotherContainerdIsFollowed() async throws {
        let scene = try await Scene.start()
        var sample = SampleContent(seed: 23)
        let (old, new) = (sample.image(), sample.image())
        try await scene.load([("quay.io/a/old:1", old.manifest.descriptor)], old.blobs)
        try await scene.advertised.until("the old is reported") { $0.digests.isSuperset(of: old.digests) }
        try await scene.daemon.stop(SIGKILL)
        let replacement = try scene.daemon.withRoot("another-root")
        try await replacement.start()
        let next = Scene(daemon: replacement, store: scene.store, advertised: scene.advertised)
        try await next.load([("quay.io/a/new:1", new.manifest.descriptor)], new.blobs)
        try await scene.advertised.until("only the new is reported") {
            $0.images.count == 1 && $0.digests.isSuperset(of: new.digests) && $0.digests.isDisjoint(with: old.digests)
        }
        try await next.untilConsistent()
        let content = try #require(try await scene.store.open(new.layers[0].digest))
        guard case .file = content.body else {
            Issue.record("the new content path is not used: \(scene.store.health)")
            return
        }
        try await next.finish()
    }

    @Test func aStoreThatIsThereBeforeContainerdWaitsForIt() async throws {
        let daemon = try ContainerdDaemon()
        let store = makeStore(daemon)
        let advertised = Advertised(store)
        try await store.start()
        _ = try await eventually("the missing socket is explained") {
            (store.health.explanation ?? "").contains("does not exist") ? true : nil
        }
        await #expect(throws: ContentStoreError.self) { _ = try await store.images() }
        try await daemon.start()
        try await store.waitUntilIndexed()
        let scene = Scene(daemon: daemon, store: store, advertised: advertised)
        var sample = SampleContent(seed: 24)
        let image = sample.image()
        try await scene.load([("quay.io/a/app:1", image.manifest.descriptor)], image.blobs)
        try await advertised.until("it is reported") { $0.digests.isSuperset(of: image.digests) }
        try await scene.finish()
    }

    /// Twenty times containerd is killed while an image is being pulled; each time it is back, exactly what it has is reported.
    @Test(arguments: [true, false])
    func killedDuringPulls(mounted: Bool) async throws {
        let scene = try await Scene.start(mounted: mounted)
        let registry = try await LoopbackRegistry.start()
        var sample = SampleContent(seed: 25)
        var longest = Duration.zero
        for round in 0..<20 {
            let layers = [sample.layer(size: 40_000), sample.layer(size: 50_000), sample.layer(size: 200_000)]
            let image = sample.image(layers: layers)
            registry.add(image.blobs, repository: "app", tag: "v\(round)", target: image.manifest.digest)
            registry.hold([layers[2].digest])
            let name = "\(registry.host)/app:v\(round)"
            let pull = try await scene.daemon.startCtr(
                label: "fetch-\(round)", "content", "fetch", "--plain-http", "--all-platforms", name)
            // At another point of the pull each time: at once, when the store may not even be connected again, or when the
            // last layer is half there.
            if round % 4 != 0 {
                _ = try await eventually("the last layer is under way", detail: { pull.errors }) {
                    registry.waitingDownloads > 0 && scene.store.health.isReady ? true : nil
                }
            }
            let lost = scene.store.health.lostConnections
            try await scene.daemon.stop(SIGKILL)
            pull.send(SIGKILL)
            registry.release([layers[2].digest])
            if round % 4 != 0 {
                _ = try await eventually("the loss of round \(round) is noticed") {
                    scene.store.health.lostConnections > lost ? true : nil
                }
            }
            try await scene.daemon.start()
            var back = ContinuousClock.now
            if round % 2 == 0 {
                try await scene.daemon.ctr("content", "fetch", "--plain-http", "--all-platforms", name)
                back = .now
                let reference = try reference(name)
                try await scene.advertised.until("the image of round \(round) is reported") {
                    $0.images[reference] == image.manifest.digest && $0.digests.isSuperset(of: image.digests)
                }
            }
            try await scene.untilConsistent()
            longest = max(longest, .now - back)
        }
        #expect(scene.store.health.lostConnections >= 15)
        print("reported what is present within \(longest) of containerd's start or the pull's end, mounted: \(mounted)")
        try await registry.stop()
        try await scene.finish()
    }
}
