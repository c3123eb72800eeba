import ContentStore
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

/// A router that records its calls, and can be made to refuse keys.
private final class RecordingRouter: PeerRouter {
    struct State {
        var keys: Set<String> = []
        var batches: [Int] = []
        var refusals = 0
    }

    let state = NIOLockedValueBox(State())
    /// Whether calls wait before they accept keys.
    let isHeld = NIOLockedValueBox(false)
    let localPeer: Peer

    init(refusals: Int = 0) throws {
        localPeer = try peer(9)
        state.withLockedValue { $0.refusals = refusals }
    }

    func advertise(_ keys: [String]) async throws {
        let refuses = state.withLockedValue { state -> Bool in
            if state.refusals > 0 {
                state.refusals -= 1
                return true
            }
            state.batches.append(keys.count)
            state.keys.formUnion(keys)
            return false
        }
        if refuses { throw PeerRouterError.tooManyKeys(limit: 0) }
        while isHeld.withLockedValue({ $0 }) { try await Task.sleep(for: .milliseconds(1)) }
    }

    func withdraw(_ keys: [String]) async { state.withLockedValue { $0.keys.subtract(keys) } }
    func providers(for key: String, limit: Int) -> AsyncStream<Peer> { AsyncStream { $0.finish() } }
    func reportUnreachable(_ peer: PeerID) {}
    var isReady: Bool { true }
    func knownPeers() async -> [Peer] { [] }
    var keys: Set<String> { state.withLockedValue { $0.keys } }
}

/// A store whose events come from one store and whose answers from another.
private final class InconsistentStore: ContentStore {
    let actual = InMemoryContentStore()
    let announced = InMemoryContentStore()
    let damaged = NIOLockedValueBox<Set<String>>([])
    let isDown = NIOLockedValueBox(false)
    /// Whether single contents cannot be examined.
    let infoFails = NIOLockedValueBox(false)

    func resolve(_ reference: Reference) async throws -> Descriptor? { try await actual.resolve(reference) }
    func info(_ digest: Digest) async throws -> ContentInfo? {
        if infoFails.withLockedValue({ $0 }) { throw ContentStoreError.unavailable("test") }
        return try await actual.info(digest)
    }
    func open(_ digest: Digest) async throws -> OpenContent? { try await actual.open(digest) }
    func images() async throws -> [StoredImage] {
        if isDown.withLockedValue({ $0 }) { throw ContentStoreError.unavailable("test") }
        return try await actual.images()
    }
    func contents(of image: StoredImage) async throws -> [ContentInfo] {
        if damaged.withLockedValue({ $0.contains("\(image.reference)") }) {
            throw ContentStoreError.unavailable("test")
        }
        return try await actual.contents(of: image)
    }
    func events() -> ContentEvents { announced.events() }
}

@Suite(.timeLimit(.minutes(10))) struct AdvertiserTests {
    private func configuration() -> AdvertiserConfiguration {
        var configuration = AdvertiserConfiguration()
        configuration.batchDelay = .milliseconds(1)
        configuration.retryDelay = .milliseconds(5)
        return configuration
    }

    @discardableResult
    private func addImage(
        _ number: Int, to stores: [InMemoryContentStore], as name: String
    ) async throws -> (keys: Set<String>, manifest: Digest) {
        let manifest = SharedBytes.manifest(number)
        let (config, layer) = (ByteBuffer(string: "c"), ByteBuffer(string: "l"))
        let reference = try Reference(parsing: name)
        for store in stores {
            try await store.write(config, as: Digest.hash(of: "c".utf8))
            try await store.write(layer, as: Digest.hash(of: "l".utf8))
            try await store.write(manifest.buffer, as: manifest.digest)
            try await store.tag(
                Descriptor(mediaType: .imageManifest, digest: manifest.digest, size: Int64(manifest.count)),
                as: reference)
        }
        var keys: Set = [
            "\(manifest.digest)", "\(Digest.hash(of: "c".utf8))", "\(Digest.hash(of: "l".utf8))",
        ]
        if let tagged = reference.taggedName { keys.insert(tagged) }
        return (keys, manifest.digest)
    }

    private func run(
        _ store: any ContentStore, _ router: any PeerRouter, _ configuration: AdvertiserConfiguration,
        filter: ReferenceFilter = .all,
        registry: PrometheusRegistry = PrometheusRegistry(), _ body: (Advertiser) async throws -> Void
    ) async throws {
        let advertiser = Advertiser(
            configuration: configuration, store: store, router: router, filter: filter, metricsFactory: registry,
            logger: quiet)
        let task = Task { try await advertiser.run() }
        defer { task.cancel() }
        try await body(advertiser)
    }

    @Test func contentIsAdvertisedThenEveryChange() async throws {
        let store = InMemoryContentStore()
        let router = try RecordingRouter()
        let first = try await addImage(1, to: [store], as: "docker.io/library/a:1")
        let registry = PrometheusRegistry()
        try await run(store, router, configuration(), registry: registry) { advertiser in
            try await eventually { router.keys == first.keys }
            let second = try await addImage(2, to: [store], as: "quay.io/b/c:2")
            try await eventually { router.keys == first.keys.union(second.keys) }
            try await eventually {
                String(decoding: registry.text(), as: UTF8.self)
                    .contains(#"spegel_advertised_image_tags{registry="quay.io"} 1"#)
            }
            try await store.untag(Reference(parsing: "quay.io/b/c:2"))
            try await eventually { !router.keys.contains("quay.io/b/c:2") }
            try await store.remove(second.manifest)
            try await eventually { router.keys == first.keys }
            #expect(await advertiser.advertisedKeys == first.keys)
        }
    }

    @Test func aTagIsAdvertisedOnlyWithItsContent() async throws {
        let store = InMemoryContentStore()
        let router = try RecordingRouter()
        let image = try await addImage(1, to: [store], as: "docker.io/library/a:1")
        try await run(store, router, configuration()) { _ in
            try await eventually { router.keys == image.keys }
            try await store.remove(image.manifest)
            try await eventually { !router.keys.contains("\(image.manifest)") }
            try await eventually { !router.keys.contains("docker.io/library/a:1") }
            try await store.write(SharedBytes.manifest(1).buffer, as: image.manifest)
            try await eventually { router.keys == image.keys }
        }
    }

    @Test func filteredReferencesAreNotAdvertised() async throws {
        let store = InMemoryContentStore()
        let router = try RecordingRouter()
        let wanted = try await addImage(1, to: [store], as: "docker.io/library/a:1")
        try await addImage(2, to: [store], as: "quay.io/b/c:2")
        let filter = try ReferenceFilter(mirroredRegistries: ["https://docker.io"], patterns: [])
        try await run(store, router, configuration(), filter: filter) { _ in
            try await eventually { router.keys == wanted.keys }
        }
    }

    @Test func batchesAreBounded() async throws {
        let store = InMemoryContentStore()
        for number in 0..<100 { _ = try store.add(Array("\(number)".utf8)) }
        let router = try RecordingRouter()
        var configuration = configuration()
        configuration.batchKeys = 7
        try await run(store, router, configuration) { _ in
            try await eventually { router.keys.count == 100 }
            #expect(router.state.withLockedValue { $0.batches.allSatisfy { $0 <= 7 } })
        }
    }

    @Test func refusedKeysAreOfferedAgain() async throws {
        let store = InMemoryContentStore()
        let image = try await addImage(1, to: [store], as: "docker.io/library/a:1")
        let router = try RecordingRouter(refusals: 5)
        try await run(store, router, configuration()) { _ in
            try await eventually { router.keys == image.keys }
        }
    }

    /// Withdrawn keys make room, so that they must not wait for refused ones.
    @Test func removedKeysAreWithdrawnWhileOthersAreRefused() async throws {
        let store = InMemoryContentStore()
        let image = try await addImage(1, to: [store], as: "docker.io/library/a:1")
        let router = try RecordingRouter()
        var configuration = configuration()
        configuration.retryDelay = .seconds(3600)
        try await run(store, router, configuration) { _ in
            try await eventually { router.keys == image.keys }
            router.state.withLockedValue { $0.refusals = 1 }
            let refused = Digest.hash(of: "refused".utf8)
            try await store.write(ByteBuffer(string: "refused"), as: refused)
            try await eventually { router.state.withLockedValue { $0.refusals == 0 } }
            try await store.untag(Reference(parsing: "docker.io/library/a:1"))
            try await eventually { !router.keys.contains("docker.io/library/a:1") }
            #expect(!router.keys.contains("\(refused)"))
        }
    }

    /// An image by digest only, whose content was there before, changes no key, but what is counted.
    @Test func imagesAreCountedWhenNoKeyComesOrGoes() async throws {
        let store = InMemoryContentStore()
        let router = try RecordingRouter()
        let manifest = SharedBytes.manifest(3)
        try await store.write(manifest.buffer, as: manifest.digest)
        let registry = PrometheusRegistry()
        try await run(store, router, configuration(), registry: registry) { _ in
            try await eventually { router.keys == ["\(manifest.digest)"] }
            try await store.tag(
                Descriptor(mediaType: .imageManifest, digest: manifest.digest, size: Int64(manifest.count)),
                as: Reference(parsing: "docker.io/library/a@\(manifest.digest)"))
            try await eventually {
                String(decoding: registry.text(), as: UTF8.self)
                    .contains(#"spegel_advertised_image_digests{registry="docker.io"} 1"#)
            }
        }
    }

    @Test func reconciliationCorrectsMissedEvents() async throws {
        let store = InconsistentStore()
        let router = try RecordingRouter()
        let gone = try await addImage(1, to: [store.announced], as: "docker.io/library/gone:1")
        try await run(store, router, configuration()) { advertiser in
            try await eventually { router.keys == gone.keys }
            // The events announced one image; the store has another.
            let there = try await addImage(2, to: [store.actual], as: "docker.io/library/there:1")
            try await eventually { await advertiser.reconcile() >= 0 && router.keys == there.keys }
            #expect(await advertiser.reconcile() == 0)
        }
    }

    /// Keys of a call that is under way are neither withdrawn nor advertised again.
    @Test func keysUnderWayAreNotCorrected() async throws {
        let store = InMemoryContentStore()
        let router = try RecordingRouter()
        // No image leads to it.
        let first = try store.add(Array("first".utf8)).description
        router.isHeld.withLockedValue { $0 = true }
        try await run(store, router, configuration()) { advertiser in
            try await eventually { router.keys == [first] }
            #expect(await advertiser.reconcile() == 0)
            router.isHeld.withLockedValue { $0 = false }
            try await eventually { await advertiser.advertisedKeys.contains(first) }
            // Once this is accepted, pending withdrawals are done.
            let second = try store.add(Array("second".utf8)).description
            try await eventually { router.keys.contains(second) }
            #expect(router.keys == [first, second])
            let batches = router.state.withLockedValue { $0.batches }
            #expect(batches == [1, 1])
        }
    }

    @Test func aDamagedImageHidesNothing() async throws {
        let store = InconsistentStore()
        let router = try RecordingRouter()
        let damaged = try await addImage(1, to: [store.announced, store.actual], as: "docker.io/library/damaged:1")
        let fine = try await addImage(2, to: [store.actual], as: "docker.io/library/fine:1")
        store.damaged.withLockedValue { $0 = ["docker.io/library/damaged:1"] }
        try await run(store, router, configuration()) { advertiser in
            try await eventually { router.keys == damaged.keys }
            try await eventually { await advertiser.reconcile() >= 0 && router.keys == damaged.keys.union(fine.keys) }
            // Content that cannot be examined stays advertised.
            store.infoFails.withLockedValue { $0 = true }
            #expect(await advertiser.reconcile() == 0)
            #expect(router.keys == damaged.keys.union(fine.keys))
            // A store that cannot be listed changes nothing.
            store.isDown.withLockedValue { $0 = true }
            #expect(await advertiser.reconcile() == 0)
            #expect(router.keys == damaged.keys.union(fine.keys))
        }
    }

    /// Events in any order lead to the same keys as looking at the result.
    @Test(arguments: 0..<60)
    func theSetFollowsTheEvents(seed: Int) throws {
        var random = SplitMix64(seed: UInt64(seed))
        let (one, other) = (Digest.hash(of: "x".utf8), Digest.hash(of: "y".utf8))
        let references = try [
            "r.io/a/b:1", "r.io/a/b:1@\(one)", "r.io/a/b:1@\(other)", "r.io/a/b:2", "s.io/c:1", "s.io/c@\(one)",
        ].map { try Reference(parsing: $0) }
        let digests = (0..<5).map { Digest.hash(of: "\($0)".utf8) }
        var set = AdvertisedSet(filter: .all)
        var images: [Reference: StoredImage] = [:]
        var contents: [Digest: ContentInfo] = [:]
        var advertised: Set<String> = []
        for _ in 0..<200 {
            let reference = references.randomElement(using: &random) ?? references[0]
            let digest = digests.randomElement(using: &random) ?? digests[0]
            switch Int.random(in: 0..<5, using: &random) {
            case 0, 1:
                let image = StoredImage(
                    reference: reference, target: Descriptor(mediaType: .imageManifest, digest: digest, size: 1))
                images[reference] = image
                set.apply(.imageSet(image))
            case 2:
                images[reference] = nil
                set.apply(.imageRemoved(reference))
            case 3:
                let type = [MediaType.imageManifest, .imageIndex, .dockerSchema1, .octetStream].randomElement(
                    using: &random)
                let info = ContentInfo(digest: digest, size: 1, mediaType: type ?? .octetStream)
                contents[digest] = info
                set.apply(.contentAdded(info))
            default:
                contents[digest] = nil
                set.apply(.contentRemoved(digest))
            }
            let (added, removed) = set.takeChanges()
            advertised.formUnion(added)
            advertised.subtract(removed)
            var expected = Set(contents.keys.map(\.description))
            for (name, named) in Dictionary(grouping: images.values, by: \.reference.taggedName) {
                // A name that has a digest, too, is no tag, and what is not served as a manifest has none.
                let plain = named.filter { $0.reference.digest == nil }
                guard let name, plain.contains(where: { contents[$0.target.digest]?.mediaType.isManifest == true })
                else {
                    continue
                }
                expected.insert(name)
            }
            #expect(advertised == expected)
            #expect(Set(set.keys.keys) == expected)
        }
        set.apply(.snapshotStarted)
        set.apply(.contentAdded(ContentInfo(digest: digests[0], size: 1, mediaType: .layer)))
        #expect(set.takeChanges() == ([], []))
        set.apply(.snapshotComplete)
        #expect(Set(set.keys.keys) == ["\(digests[0])"])
    }
}
