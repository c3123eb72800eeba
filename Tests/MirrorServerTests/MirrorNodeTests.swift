import ContentStore
import Foundation
import HTTPTestKit
import Logging
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import PeerRouting
import ServiceLifecycle
import TestSupport
import Testing

@testable import MirrorServer

/// Collects what happens, in order.
private final class Journal: Sendable {
    private let box = NIOLockedValueBox<[String]>([])
    var entries: [String] { box.withLockedValue { $0 } }
    func add(_ entry: String) { box.withLockedValue { $0.append(entry) } }
}

/// A router that notes its start and its end.
private final class SpyRouter: PeerRouter {
    struct Failure: Error {}
    let journal: Journal
    let localPeer: Peer
    let fails: Bool
    let ready = NIOLockedValueBox(true)
    let keys = NIOLockedValueBox<Set<String>>([])

    init(_ journal: Journal, fails: Bool = false) throws {
        self.journal = journal
        self.fails = fails
        localPeer = Peer(id: NodeIdentity().peerID, addresses: [.loopbackV4])
    }

    func start() async throws {
        if fails { throw Failure() }
        journal.add("router started")
    }
    func shutdown() async { journal.add("router shut down") }
    func advertise(_ keys: [String]) async throws { self.keys.withLockedValue { $0.formUnion(keys) } }
    func withdraw(_ keys: [String]) async { self.keys.withLockedValue { $0.subtract(keys) } }
    func providers(for key: String, limit: Int) -> AsyncStream<Peer> { AsyncStream { $0.finish() } }
    func reportUnreachable(_ peer: PeerID) {}
    var isReady: Bool { ready.withLockedValue { $0 } }
    func knownPeers() async -> [Peer] { [localPeer] }
}

/// A store that is a service.
private final class ServiceStore: ContentStore, Service {
    struct Failure: Error {}
    let inner: any ContentStore
    let journal: Journal
    /// Ends the service with an error.
    let failure = AsyncStream<Void>.makeStream()

    init(_ inner: any ContentStore, _ journal: Journal) {
        self.inner = inner
        self.journal = journal
    }

    func run() async throws {
        journal.add("store runs")
        defer { journal.add("store ended") }
        for await _ in failure.stream.cancelOnGracefulShutdown() { throw Failure() }
    }
    func resolve(_ reference: Reference) async throws -> Descriptor? { try await inner.resolve(reference) }
    func info(_ digest: Digest) async throws -> ContentInfo? { try await inner.info(digest) }
    func open(_ digest: Digest) async throws -> OpenContent? { try await inner.open(digest) }
    func images() async throws -> [StoredImage] { try await inner.images() }
    func contents(of image: StoredImage) async throws -> [ContentInfo] { try await inner.contents(of: image) }
    func events() -> ContentEvents { inner.events() }
}

@Suite(.timeLimit(.minutes(10))) struct MirrorNodeTests {
    private let loopback = ListenAddress(host: "127.0.0.1", port: 0)

    private func configuration(
        store: any ContentStore, router: (any PeerRouter)? = nil, logger: Logger = quiet
    ) -> MirrorNode.Configuration {
        var configuration = MirrorNode.Configuration(
            store: store, router: router, registryAddress: loopback, adminAddress: loopback, logger: logger)
        configuration.peerPort = router == nil ? nil : 5000
        return configuration
    }

    private func port(_ addresses: [SocketAddress]) throws -> Int { try #require(addresses.first?.port) }

    // MARK: Order

    @Test func partsStartAndEndInOrder() async throws {
        let journal = Journal()
        let fixture = try await Fixture()
        let router = try SpyRouter(journal)
        let node = try MirrorNode(configuration(store: ServiceStore(fixture.store, journal), router: router))
        #expect(journal.entries.isEmpty)
        try await node.start()
        try await eventually { journal.entries.contains("store runs") }
        let registry = try port(node.registryAddresses)
        try await eventually { router.keys.withLockedValue { $0.contains("\(fixture.layerDigest)") } }
        try await RawClient.with(port: registry) { client async throws in
            #expect(try await client.request(fixture.manifestPath).body == fixture.manifest)
        }
        await node.shutdown()
        #expect(journal.entries.prefix(2).sorted() == ["router started", "store runs"])
        #expect(journal.entries.dropFirst(2) == ["router shut down", "store ended"])
        #expect(node.registryAddresses.isEmpty)
        #expect(node.adminAddresses.isEmpty)
        await #expect(throws: (any Error).self) { try await RawClient.with(port: registry) { _ in } }
    }

    @Test func unmanagedPartsAreNotTouched() async throws {
        let journal = Journal()
        var configuration = configuration(
            store: ServiceStore(InMemoryContentStore(), journal), router: try SpyRouter(journal))
        configuration.managesRouter = false
        configuration.managesStore = false
        let node = try MirrorNode(configuration)
        try await node.start()
        await node.shutdown()
        #expect(journal.entries.isEmpty)
    }

    // MARK: Start and end, several times

    @Test func aSecondStartIsAnError() async throws {
        let node = try MirrorNode(configuration(store: InMemoryContentStore()))
        try await node.start()
        let address = node.registryAddresses
        await #expect(throws: LifecycleError.alreadyStarted("node")) { try await node.start() }
        #expect(node.registryAddresses == address)
        await node.shutdown()
    }

    @Test func aSecondShutdownDoesNothing() async throws {
        let journal = Journal()
        let node = try MirrorNode(configuration(store: InMemoryContentStore(), router: try SpyRouter(journal)))
        try await node.start()
        async let first: Void = node.shutdown()
        async let second: Void = node.shutdown()
        _ = await (first, second)
        await node.shutdown()
        #expect(journal.entries == ["router started", "router shut down"])
    }

    @Test func aNodeThatWasShutDownDoesNotStartAgainButAnotherOneDoes() async throws {
        let configuration = configuration(store: InMemoryContentStore())
        let node = try MirrorNode(configuration)
        try await node.start()
        await node.shutdown()
        await #expect(throws: LifecycleError.stopped("node")) { try await node.start() }
        await #expect(throws: LifecycleError.stopped("node")) { try await node.run() }
        let next = try MirrorNode(configuration)
        try await next.start()
        try await RawClient.with(port: port(next.registryAddresses)) { client async throws in
            #expect(try await client.request("/v2/").status == 200)
        }
        await next.shutdown()
        let never = try MirrorNode(configuration)
        await never.shutdown()
        await #expect(throws: LifecycleError.stopped("node")) { try await never.start() }
    }

    @Test func runEndsWithItsGroupOrAShutdown() async throws {
        let fixture = try await Fixture()
        // Started by run().
        let node = try MirrorNode(configuration(store: fixture.store))
        let group = ServiceGroup(services: [node], logger: quiet)
        let running = Task { try await group.run() }
        try await eventually { !node.registryAddresses.isEmpty }
        await group.triggerGracefulShutdown()
        try await running.value
        #expect(node.registryAddresses.isEmpty)
        // Started before.
        let other = try MirrorNode(configuration(store: fixture.store))
        try await other.start()
        let address = other.registryAddresses
        let task = Task { try await other.run() }
        try await RawClient.with(port: port(address)) { client async throws in
            #expect(try await client.request(fixture.tagPath).status == 200)
        }
        await other.shutdown()
        try await task.value
        // Cancelled.
        let third = try MirrorNode(configuration(store: fixture.store))
        let cancelled = Task { try await third.run() }
        try await eventually { !third.registryAddresses.isEmpty }
        cancelled.cancel()
        try await cancelled.value
        #expect(third.registryAddresses.isEmpty)
    }

    // MARK: Failures

    @Test func invalidConfigurationsAreRefused() throws {
        let router = try SpyRouter(Journal())
        var configuration = configuration(store: InMemoryContentStore(), router: router)
        configuration.peerPort = nil
        #expect(throws: MirrorNode.ConfigurationError.noPeerPort) { try MirrorNode(configuration) }
        configuration.registryAddresses = []
        #expect(throws: MirrorNode.ConfigurationError.noRegistryAddress) { try MirrorNode(configuration) }
    }

    @Test func aStartThatFailsLeavesNothing() async throws {
        let journal = Journal()
        let blocker = try MirrorNode(configuration(store: InMemoryContentStore()))
        try await blocker.start()
        let taken = UInt16(try port(blocker.registryAddresses))
        var second = configuration(
            store: ServiceStore(InMemoryContentStore(), journal), router: try SpyRouter(journal))
        second.adminAddress = ListenAddress(host: "127.0.0.1", port: taken)
        let node = try MirrorNode(second)
        let error = await #expect(throws: MirrorNode.StartError.self) { try await node.start() }
        #expect(error?.part == .admin)
        #expect(error?.reason is ListenError)
        #expect(node.registryAddresses.isEmpty)
        #expect(journal.entries.last == "store ended" || !journal.entries.contains("store runs"))
        #expect(journal.entries.contains("router shut down"))
        await blocker.shutdown()
        let third = try MirrorNode(
            configuration(store: InMemoryContentStore(), router: try SpyRouter(journal, fails: true)))
        let failure = await #expect(throws: MirrorNode.StartError.self) { try await third.start() }
        #expect(failure?.part == .router)
    }

    @Test func aStoreThatFailsEndsTheNode() async throws {
        let journal = Journal()
        let store = ServiceStore(InMemoryContentStore(), journal)
        let node = try MirrorNode(configuration(store: store))
        let running = Task { try await node.run() }
        try await eventually { !node.registryAddresses.isEmpty }
        store.failure.continuation.yield()
        await #expect(throws: ServiceStore.Failure.self) { try await running.value }
        #expect(node.registryAddresses.isEmpty)
    }

    // MARK: State

    @Test func statusReflectsTheNode() async throws {
        let fixture = try await Fixture()
        let router = try SpyRouter(Journal())
        let problem = NIOLockedValueBox<String?>("not listed yet")
        var configuration = configuration(store: fixture.store, router: router)
        configuration.storeProblem = { problem.withLockedValue { $0 } }
        configuration.credentials = BasicCredentials(username: "u", password: "p")
        let node = try MirrorNode(configuration)
        #expect(await node.status.reason == "the node does not run")
        try await node.start()
        let (registry, admin) = (try port(node.registryAddresses), try port(node.adminAddresses))
        func status(_ client: RawClient) async throws -> MirrorNode.Status {
            let response = try await client.request("/debug/status")
            #expect(response.status == 200)
            #expect(response["content-type"] == "application/json")
            return try JSONDecoder().decode(MirrorNode.Status.self, from: Data(response.body.readableBytesView))
        }
        try await RawClient.with(port: admin) { client async throws in
            try await eventually { try await status(client).advertisedKeyCount == 4 }
            var now = try await status(client)
            #expect(!now.isReady)
            #expect(now.reason == "not listed yet")
            #expect(now.advertisedKeys.contains("docker.io/library/demo:1.0"))
            #expect(now.advertisedKeys == now.advertisedKeys.sorted())
            #expect(now.registryAddresses == ["127.0.0.1:\(registry)"])
            #expect(now.localPeer?.id == "\(router.localPeer.id)")
            #expect(now.peers.map(\.addresses) == [["127.0.0.1"]])
            #expect(now.store?.isListed == true)
            #expect(now.store?.images == 1)
            try await RawClient.with(port: registry) { reader async throws in
                #expect(try await reader.request("/readyz").status == 500)
                problem.withLockedValue { $0 = nil }
                #expect(try await reader.request("/readyz").status == 200)
                // No peer has it, and the credentials are asked for.
                let path = "/v2/library/demo/blobs/\(Digest.hash(of: "none".utf8))?ns=docker.io"
                #expect(try await reader.request(path).status == 401)
                let field = "Authorization: \(BasicCredentials(username: "u", password: "p").authorization)\r\n"
                #expect(try await reader.request(path, fields: field).status == 404)
            }
            now = try await status(client)
            #expect(now.isReady)
            #expect(now.reason == nil)
            #expect(now.mirror?.misses == 1)
            router.ready.withLockedValue { $0 = false }
            #expect(try await status(client).reason == "the router has not joined the cluster")
            #expect(try await client.request("/metrics").text.contains("spegel_advertised_keys"))
        }
        await node.shutdown()
    }

    @Test func theFilterHoldsForServingAndAdvertising() async throws {
        let fixture = try await Fixture()
        let router = try SpyRouter(Journal())
        var configuration = configuration(store: fixture.store, router: router)
        configuration.filter = try ReferenceFilter(mirroredRegistries: ["https://quay.io"], patterns: [])
        let node = try MirrorNode(configuration)
        try await node.start()
        try await eventually { await node.status.store?.isListed == true }
        try await RawClient.with(port: port(node.registryAddresses)) { client async throws in
            #expect(try await client.request(fixture.tagPath).status == 404)
        }
        await node.shutdown()
        #expect(router.keys.withLockedValue { $0 }.isEmpty)
    }

    /// Each event has one line, with a router as without.
    @Test(arguments: [false, true]) func eventsAreLoggedOnce(hasRouter: Bool) async throws {
        let lines = LineLog()
        let fixture = try await Fixture()
        let node = try MirrorNode(
            configuration(
                store: fixture.store, router: hasRouter ? try SpyRouter(Journal()) : nil,
                logger: Logger(label: "test") { _ in lines }))
        try await node.start()
        try await eventually { await node.status.store?.isListed == true }
        let name = try Reference(parsing: "quay.io/a/b:2")
        let target = Descriptor(
            mediaType: .imageManifest, digest: fixture.manifestDigest, size: Int64(fixture.manifest.readableBytes))
        try await fixture.store.tag(target, as: name)
        try await fixture.store.untag(name)
        try await eventually { lines.entries.contains("OCI event quay.io/a/b:2 DELETE") }
        await node.shutdown()
        // Content whose sources change has events, too; those of the image are of interest here.
        let events = lines.entries.filter { $0.hasPrefix("OCI event quay.io") }
        #expect(events == ["OCI event quay.io/a/b:2 CREATE", "OCI event quay.io/a/b:2 DELETE"])
        #expect(lines.entries.filter { $0.hasPrefix("store listed") }.count == 1)
    }
}

/// Keeps the messages with their keys and types.
private final class LineLog: LogHandler, @unchecked Sendable {
    private let box = NIOLockedValueBox<[String]>([])
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info
    var entries: [String] { box.withLockedValue { $0 } }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let fields = ["key", "type"].compactMap { event.metadata?[$0].map { " \($0)" } }.joined()
        box.withLockedValue { $0.append("\(event.message)\(fields)") }
    }
}
