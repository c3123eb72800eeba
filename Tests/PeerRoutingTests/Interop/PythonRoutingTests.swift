import PeerTestKit
import TestSupport
import Testing

@testable import PeerRouting

/// Finding content together with an implementation of Kademlia that shares no code with ours.
///
/// py-libp2p by itself answers records, which Go never does, and takes no more than ten of them in ten seconds from one
/// peer; `--go-like` makes it behave as Go does.
@Suite(.serialized, .timeLimit(.minutes(10))) struct PythonRoutingTests {
    private func key(_ name: String) -> String { "docker.io/library/\(name):latest" }

    private func multihash(_ key: String) -> String { hexText(ContentKey(key).multihash) }

    /// The keys, of those given, that the Python peer names the router as a provider of, in its own store.
    private func kept(_ keys: [String], of router: KademliaRouter, by peer: PythonPeer) async throws -> Set<String> {
        let records = try #require(try await peer.ask("store", "store").records)
        return Set(keys.filter { records[multihash($0)]?.contains(router.peerID.description) ?? false })
    }

    /// What a peer that only joins for the question finds: everything it learns comes over the wire.
    private func askedByAnotherPython(_ key: String, at router: KademliaRouter) async throws -> [PythonPeer.Event
        .Provider]
    {
        let address = try #require(router.fullAddresses.first)
        let asker = try await PythonPeer.start(["--client", "--bootstrap", address.description, "find", key])
        let found = try await asker.event("found")
        let status = try await asker.wait()
        let providers = try #require(found.providers)
        #expect(status == (providers.isEmpty ? 1 : 0))
        return providers
    }

    @Test(arguments: [[], ["--go-like"], ["--go-like", "--early-muxer"]])
    func eachFindsWhatTheOtherProvides(_ options: [String]) async throws {
        try await withPythonPeer(options) { peer, id, addresses in
            // Provided before we are there: we have to ask.
            _ = try await peer.ask("provide \(key("before"))", "provided")
            let router = try makeRouter(joining: addresses)
            try await withRouters(router) {
                try await router.joined()
                #expect(await router.found(key("before")) == [id])
                #expect(await router.found(key("nobody's")) == [])
                #expect(await router.knownPeers().map(\.id) == [id])

                // Provided now: we are told. Python takes us into its table when told to.
                let address = try #require(router.fullAddresses.first)
                let connected = try await peer.ask("connect \(address)", "connected")
                #expect(connected.added == true)
                let provided = try await peer.ask("provide \(key("after"))", "provided")
                #expect(provided.ok == true)
                #expect(provided.multihash == multihash(key("after")))
                try await eventually { await router.recordCounts().kept == 1 }
                #expect(await router.found(key("after")) == [id])

                // Ours: they are told, and whoever asks us is.
                let ours = (0..<5).map { key("ours-\($0)") }
                try await router.advertise(ours)
                try await eventually { try await kept(ours, of: router, by: peer) == Set(ours) }
                for key in ours.prefix(2) {
                    let providers = try await askedByAnotherPython(key, at: router)
                    #expect(providers.map(\.id) == [router.peerID.description])
                    #expect(providers.first?.addrs == router.host.advertisedAddresses.map(\.description))
                }
                #expect(try await askedByAnotherPython(key("nobody's"), at: router).isEmpty)
                // What Python provides, told by us.
                #expect(try await askedByAnotherPython(key("after"), at: router).map(\.id) == [id.description])
            }
        }
    }

    @Test func theNearestPeersAreTheSame() async throws {
        try await withPythonPeer(["--go-like"]) { peer, id, addresses in
            let routers = try (0..<4).map { _ in try makeRouter(joining: addresses) }
            try await withRouters(routers[0], routers[1], routers[2], routers[3]) {
                for router in routers {
                    try await eventually { await router.knownPeers().count == 4 }
                    _ = try await peer.ask("connect \(try #require(router.fullAddresses.first))", "connected")
                }
                let target = ContentKey(key("anything")).position
                let expected = routers.map(\.peerID).sorted {
                    KadKey(hashing: $0.bytes).distance(to: target) < KadKey(hashing: $1.bytes).distance(to: target)
                }
                let closest = try #require(try await peer.ask("closest \(key("anything"))", "closest").peers)
                #expect(closest == expected.map(\.description))
            }
        }
    }

    @Test func aThousandKeysEachWay() async throws {
        let theirs = (0..<1000).map { key("theirs-\($0)") }
        let ours = (0..<1000).map { key("ours-\($0)") }
        try await withPythonPeer(["--go-like"]) { peer, id, addresses in
            let router = try makeRouter(joining: addresses)
            try await withRouters(router) {
                try await router.joined()
                let address = try #require(router.fullAddresses.first)
                _ = try await peer.ask("connect \(address)", "connected")
                try await router.advertise(ours)
                try await eventually { try await kept(ours, of: router, by: peer).count == ours.count }

                for key in theirs { peer.send("provide \(key)") }
                for key in theirs {
                    let provided = try await peer.event("provided")
                    #expect(provided.ok == true && provided.key == key)
                }
                try await eventually { await router.recordCounts().kept == theirs.count }
                for key in theirs { #expect(await router.found(key) == [id]) }

                // A node that holds none of the records: each of its answers comes over the wire.
                let asker = try makeRouter(joining: addresses)
                try await withRouters(asker) {
                    try await asker.joined()
                    for key in theirs { #expect(await asker.found(key, limit: 1) == [id]) }
                    for key in ours { #expect(await asker.found(key, limit: 1) == [router.peerID]) }
                }
                // And a Python peer that asks us alone.
                let python = try await PythonPeer.start(
                    ["--client", "--bootstrap", address.description, "find"] + ours)
                for key in ours {
                    let found = try await python.event("found")
                    #expect(found.key == key && found.providers?.map(\.id) == [router.peerID.description])
                }
                #expect(try await python.wait() == 0)
            }
        }
    }

    /// A peer that starts again has lost its records; it gets ours again and is found under its identity.
    @Test(arguments: [true, false]) func pythonStartsAgain(keepingItsIdentity: Bool) async throws {
        let seeds = ["40", "41"].map { String(repeating: $0, count: 32) }
        let router = try makeRouter()
        try await withRouters(router) {
            let bootstrap = ["--go-like", "--bootstrap", try #require(router.fullAddresses.first).description]
            let ours = (0..<20).map { key("ours-\($0)") }
            var previous: PeerID?
            let listen = "/ip4/127.0.79.1/tcp/\(reservedPort)"
            for round in 0..<3 {
                let seed = seeds[keepingItsIdentity ? 0 : round % 2]
                let (peer, id, _) = try await PythonPeer.serving(
                    bootstrap + ["--seed", seed, "--listen", listen])
                do {
                    _ = try await peer.event("connected")
                    if round == 0 { try await router.advertise(ours) }
                    #expect((id == previous) == (keepingItsIdentity && round > 0))
                    try await eventually { try await kept(ours, of: router, by: peer).count == ours.count }
                    _ = try await peer.ask("provide \(key("round-\(round)"))", "provided")
                    try await eventually { await router.found(key("round-\(round)")) == [id] }
                    // Nobody but the one that runs is left.
                    try await eventually { await router.knownPeers().map(\.id) == [id] }
                } catch {
                    await peer.stop()
                    throw error
                }
                previous = id
                await peer.stop()
            }
        }
    }

    /// We start again on the same address, at once.
    @Test(arguments: [true, false]) func weStartAgain(keepingOurIdentity: Bool) async throws {
        try await withPythonPeer(["--go-like"]) { peer, id, addresses in
            var identity = NodeIdentity()
            let listen = "/ip4/127.0.80.1/tcp/\(reservedPort)"
            for round in 0..<3 {
                if !keepingOurIdentity { identity = NodeIdentity() }
                let router = try makeRouter(identity: identity, address: listen, joining: addresses)
                try await withRouters(router) {
                    try await router.joined()
                    let address = try #require(router.fullAddresses.first)
                    _ = try await peer.ask("connect \(address)", "connected")
                    let ours = (0..<20).map { key("round-\(round)-\($0)") }
                    try await router.advertise(ours)
                    try await eventually { try await kept(ours, of: router, by: peer).count == ours.count }
                    _ = try await peer.ask("provide \(key("theirs-\(round)"))", "provided")
                    // What was provided while we were another process, too.
                    for earlier in 0...round { #expect(await router.found(key("theirs-\(earlier)")) == [id]) }
                    #expect(
                        try await askedByAnotherPython(ours[0], at: router).map(\.id) == [router.peerID.description])
                }
            }
        }
    }
}
