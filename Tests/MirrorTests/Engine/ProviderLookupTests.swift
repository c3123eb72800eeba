import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import PeerRouting
import Testing

@testable import MirrorServer

@Suite struct ProviderLookupTests {
    /// A router whose lookups end when the test says so.
    private final class SlowRouter: PeerRouter {
        let localPeer: Peer
        let lookups = NIOLockedValueBox<[String: AsyncStream<Peer>.Continuation]>([:])
        var isReady: Bool { true }

        init() throws { localPeer = try peer(99) }
        func advertise(_ keys: [String]) async throws {}
        func withdraw(_ keys: [String]) async {}
        func reportUnreachable(_ peer: PeerID) {}
        func knownPeers() async -> [Peer] { [] }
        func providers(for key: String, limit: Int) -> AsyncStream<Peer> {
            let (stream, continuation) = AsyncStream<Peer>.makeStream()
            lookups.withLockedValue { $0[key] = continuation }
            return stream
        }

        /// Waits for the lookup of `key` to begin.
        func lookup(_ key: String) async throws -> AsyncStream<Peer>.Continuation {
            while true {
                if let lookup = lookups.withLockedValue({ $0[key] }) { return lookup }
                try await Task.sleep(for: .milliseconds(1))
            }
        }
    }

    private func subscriber(_ tell: @escaping @Sendable (String) -> Void) -> ProviderLookup.Subscriber {
        ProviderLookup.Subscriber(
            eventLoop: MultiThreadedEventLoopGroup.singleton.any(), started: { tell("began") },
            found: { tell("found \($0.addresses.count)") }, ended: { tell("ended") })
    }

    /// A node that has just started and was asked for content does not miss it for longer than it takes to join.
    @Test(.timeLimit(.minutes(10)), arguments: [true, false])
    func anEmptyResultIsKeptOnceTheRouterIsReady(isReady: Bool) async throws {
        let router = InMemoryPeerRouter(peer: try peer(1), isReady: isReady)
        var limits = ProviderLookup.Limits()
        limits.emptyLifetime = .hours(1)
        let finder = ProviderLookup(router: router, limits: limits)
        let (events, said) = AsyncStream<String>.makeStream()
        #expect(!finder.find("k", subscriber { said.yield($0) }).isComplete)
        var heard = events.makeAsyncIterator()
        #expect(await heard.next() == "ended")
        #expect(finder.find("k", subscriber { _ in }).isComplete == isReady)
    }

    @Test(.timeLimit(.minutes(10))) func aLookupThatIsQueuedSaysWhenItBegins() async throws {
        let router = try SlowRouter()
        var limits = ProviderLookup.Limits()
        limits.concurrent = 1
        // However long this test stands still, nothing ends or is forgotten by itself.
        limits.duration = .hours(1)
        limits.lifetime = .hours(1)
        let finder = ProviderLookup(router: router, limits: limits)
        let (events, said) = AsyncStream<String>.makeStream()
        #expect(!finder.find("a", subscriber { _ in }).isQueued)
        let known = finder.find("b", subscriber { said.yield($0) })
        #expect(known.isQueued && !known.isComplete)
        #expect(finder.runningLookups == 1)
        try await router.lookup("a").finish()
        var heard = events.makeAsyncIterator()
        #expect(await heard.next() == "began")
        let lookup = try await router.lookup("b")
        lookup.yield(try peer(1))
        lookup.finish()
        #expect(await heard.next() == "found 1")
        #expect(await heard.next() == "ended")
        #expect(finder.find("b", subscriber { _ in }).peers.count == 1)
    }
}
