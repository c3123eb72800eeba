import Logging
import NIOConcurrencyHelpers
import PeerTestKit
import TestSupport
import Testing

@testable import PeerRouting

/// A source of peers that the test decides about, and that counts how often it was asked.
private final class PlayedSource: BootstrapSource {
    private let state = NIOLockedValueBox((answer: Result<[BootstrapCandidate], BootstrapError>.success([]), asked: 0))

    var asked: Int { state.withLockedValue { $0.asked } }

    func answer(_ result: Result<[BootstrapCandidate], BootstrapError>) {
        state.withLockedValue { $0.answer = result }
    }

    func candidates() async throws -> [BootstrapCandidate] {
        try state.withLockedValue { state in
            state.asked += 1
            return try state.answer.get()
        }
    }
}

private func router(_ source: (any BootstrapSource)? = nil) throws -> KademliaRouter {
    try makeRouter { $0.bootstrap = source }
}

extension KademliaRouter {
    fileprivate func connect(to other: KademliaRouter) async throws {
        _ = try await host.connect(to: other.peerID, addresses: other.host.listenAddresses)
    }

    fileprivate func everybody(for key: String) async -> [PeerID] {
        var peers: [PeerID] = []
        for await peer in providers(for: key, limit: 0) { peers.append(peer.id) }
        return peers
    }

    /// Asks until the answer is this one; the time limit ends the wait.
    fileprivate func finds(_ peers: Set<PeerID>, for key: String) async throws {
        while Set(await everybody(for: key)) != peers { try await Task.sleep(for: .milliseconds(20)) }
    }
}

@Suite(.serialized, .timeLimit(.minutes(10))) struct KademliaRouterTests {
    @Test func readyOnceThereIsSomebodyAndTheFirstSearchIsDone() async throws {
        let (a, b) = (try router(), try router())
        #expect(a.state == .idle && !a.isReady)
        try await withRouters(a, b) {
            #expect(a.state == .joining && !a.isReady)
            #expect(await a.everybody(for: "nothing") == [])
            try await b.connect(to: a)
            try await eventually { a.isReady && b.isReady }
            #expect(a.state == .joined && b.state == .joined)
            #expect(await a.knownPeers().map(\.id) == [b.peerID])
        }
        #expect(a.state == .stopped && !a.isReady)
    }

    @Test func aClusterOfOneIsReadyUntilThereAreMore() async throws {
        let source = PlayedSource()
        let (a, b) = (try router(source), try router())
        source.answer(.success([BootstrapCandidate(id: a.peerID, addresses: [])]))
        try await withRouters(a, b) {
            try await eventually { a.state == .alone }
            #expect(a.isReady)
            // What it holds it keeps announced, so that whoever comes is told.
            try await a.advertise(["alone"])
            #expect(await a.everybody(for: "alone") == [])
            try await b.connect(to: a)
            try await eventually { a.state == .joined && b.state == .joined }
            try await b.finds([a.peerID], for: "alone")
        }
    }

    /// Not to find out whether there are others is something else than to be alone.
    @Test func aNodeThatFindsNobodyIsNotReady() async throws {
        let source = PlayedSource()
        let a = try router(source)
        let nobody = try Multiaddr(parsing: "/ip4/127.0.0.1/tcp/1")
        let answers: [Result<[BootstrapCandidate], BootstrapError>] = [
            .success([]), .failure(BootstrapError("the name does not resolve")),
            .success([BootstrapCandidate(id: NodeIdentity().peerID, addresses: [nobody])]),
        ]
        try await withRouters(a) {
            for answer in answers {
                source.answer(answer)
                let before = source.asked
                try await eventually { source.asked >= before + 2 }
                #expect(a.state == .joining && !a.isReady, "\(answer)")
            }
        }
    }

    @Test func whatIsAdvertisedIsFoundByTheOthersOnly() async throws {
        let (a, b, c) = (try router(), try router(), try router())
        try await withRouters(a, b, c) {
            try await b.connect(to: a)
            try await c.connect(to: a)
            try await eventually { a.isReady && b.isReady && c.isReady }
            try await a.advertise(["one", "both"])
            try await b.advertise(["both"])
            try await c.finds([a.peerID], for: "one")
            try await c.finds([a.peerID, b.peerID], for: "both")
            try await a.finds([b.peerID], for: "both")
            #expect(await a.everybody(for: "one") == [])
            // The addresses are those to fetch from.
            for await peer in c.providers(for: "one", limit: 1) { #expect(peer.addresses == [.loopbackV4]) }
        }
    }

    @Test func whoLeavesIsForgottenAtOnceAndItsCallersAreTold() async throws {
        let (a, b, c) = (try router(), try router(), try router())
        try await withRouters(b, c) {
            try await a.start()
            try await a.connect(to: b)
            try await c.connect(to: b)
            try await a.connect(to: c)
            try await eventually { a.isReady && b.isReady && c.isReady }
            try await a.advertise(["key"])
            try await b.finds([a.peerID], for: "key")
            try await c.finds([a.peerID], for: "key")
            await a.shutdown()
            try await b.finds([], for: "key")
            try await c.finds([], for: "key")
            await #expect(throws: PeerRouterError.stopped) { try await a.advertise(["more"]) }
            #expect(await a.everybody(for: "key") == [])
        }
    }

    @Test func aCrashedPeerIsLeftOutOnceItWasReported() async throws {
        let (a, b, c) = (try router(), try router(), try router())
        try await withRouters(b, c) {
            try await a.start()
            try await a.connect(to: b)
            try await c.connect(to: b)
            try await eventually { a.isReady && b.isReady && c.isReady }
            try await a.advertise(["key"])
            try await c.advertise(["key"])
            try await b.finds([a.peerID, c.peerID], for: "key")
            // Without a word to anybody.
            await a.host.shutdown()
            b.reportUnreachable(a.peerID)
            try await b.finds([c.peerID], for: "key")
            await a.shutdown()
        }
    }

    @Test func keysBeyondTheLimitAreRefusedAltogether() async throws {
        var configuration = KademliaRouterConfiguration(
            identity: NodeIdentity(), listenAddresses: [try Multiaddr(parsing: "/ip4/127.0.0.1/tcp/0")],
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        configuration.kademlia.ownKeys = 10
        let router = KademliaRouter(configuration: configuration)
        try await withRouters(router) {
            try await router.advertise((0..<10).map { "\($0)" })
            try await router.advertise(["3"])
            await #expect(throws: PeerRouterError.tooManyKeys(limit: 10)) { try await router.advertise(["3", "10"]) }
            #expect(await router.recordCounts().own == 10)
            await router.withdraw(["3"])
            try await router.advertise(["10"])
        }
    }
}
