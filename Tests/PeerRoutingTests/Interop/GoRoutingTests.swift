import PeerTestKit
import TestSupport
import Testing

@testable import PeerRouting

/// One DHT of our nodes and of those that Go's libp2p makes, which is what Spegel is built on.
@Suite(.serialized, .timeLimit(.minutes(10))) struct GoRoutingTests {
    private func key(_ name: String) -> String { "docker.io/library/\(name):latest" }

    private func router(
        identity: NodeIdentity = NodeIdentity(), address: String = "/ip4/127.0.0.1/tcp/0", joining peers: [GoPeer] = []
    ) throws -> KademliaRouter {
        try makeRouter(identity: identity, address: address, joining: peers.map(\.fullAddress)) {
            $0.protocolID = GoPeer.protocolID
        }
    }

    /// Waits until somebody who only asks finds exactly these providers, over the wire.
    private func isFound(_ key: String, at providers: Set<PeerID>, asking peer: GoPeer) async throws {
        try await eventually { Set(try await peer.providers(of: key).map(\.id)) == providers }
    }

    /// Waits until a router is all there is in a Go node's table, which takes nobody before its own check of it; until
    /// then the node cannot tell anybody what it provides.
    private func isTaken(_ router: KademliaRouter, by peer: GoPeer) async throws {
        try await eventually { try await peer.closest(to: key("anything")) == [router.peerID] }
    }

    @Test(arguments: [[], ["-tls=0"]]) func eachFindsWhatTheOtherProvides(_ security: [String]) async throws {
        let go = try await GoPeer.start(options: security)
        try await withGoPeers([go]) {
            // Provided while it is alone, which it says, and keeps the record all the same: we have to ask.
            await #expect(throws: HostError.self) { try await go.provide(key("before")) }
            let ours = try router(joining: [go])
            try await withRouters(ours) {
                try await ours.joined()
                #expect(try await ours.host.ping(go.id) > .zero)
                #expect(await ours.found(key("before")) == [go.id])
                #expect(await ours.found(key("nobody's")) == [])
                // It took us into its table, and so tells us.
                try await isTaken(ours, by: go)
                try await go.provide(key("after"))
                try await eventually { await ours.recordCounts().kept == 1 }
                #expect(await ours.found(key("after")) == [go.id])

                try await ours.advertise([key("ours")])
                try await eventually {
                    try await go.providers(of: key("ours"))
                        == [.init(id: ours.peerID, addresses: ours.host.advertisedAddresses)]
                }
                // Whoever asks only us is told of both.
                let address = try #require(ours.fullAddresses.first)
                let asker = try await GoPeer.start(isMember: false, joining: [address], options: security)
                try await withGoPeers([asker]) {
                    try await isFound(key("ours"), at: [ours.peerID], asking: asker)
                    try await isFound(key("after"), at: [go.id], asking: asker)
                    #expect(try await asker.providers(of: key("nobody's")).isEmpty)
                }
            }
        }
    }

    /// Go dials us, when nobody of ours has dialled it.
    @Test(arguments: [[], ["-tls=0"]]) func goDialsUs(_ security: [String]) async throws {
        let ours = try router()
        try await withRouters(ours) {
            let go = try await GoPeer.start(options: security)
            try await withGoPeers([go]) {
                try await go.connect(to: ours)
                try await eventually { await ours.knownPeers().map(\.id) == [go.id] }
                try await isTaken(ours, by: go)
                try await go.provide(key("theirs"))
                try await eventually { await ours.found(key("theirs")) == [go.id] }
                try await ours.advertise([key("ours")])
                try await isFound(key("ours"), at: [ours.peerID], asking: go)
            }
        }
    }

    @Test func aThousandKeysEachWay() async throws {
        let go = try await GoPeer.start()
        try await withGoPeers([go]) {
            let ours = try router(joining: [go])
            try await withRouters(ours) {
                try await ours.joined()
                try await isTaken(ours, by: go)
                let (mine, theirs) = ((0..<1000).map { key("ours-\($0)") }, (0..<1000).map { key("theirs-\($0)") })
                try await ours.advertise(mine)
                for key in theirs { try await go.provide(key) }
                try await eventually { await ours.recordCounts().kept == theirs.count }
                for key in mine { try await isFound(key, at: [ours.peerID], asking: go) }
                // A node that holds none of the records.
                let asker = try router(joining: [go])
                try await withRouters(asker) {
                    try await asker.joined()
                    for key in mine { #expect(await asker.found(key, limit: 1) == [ours.peerID]) }
                    for key in theirs { #expect(await asker.found(key, limit: 1) == [go.id]) }
                }
            }
        }
    }

    /// A cluster that is being moved over, node by node.
    @Test func aMixedClusterIsOne() async throws {
        var goes = [try await GoPeer.start()]
        for _ in 0..<3 { goes.append(try await GoPeer.start(joining: [goes[0].fullAddress])) }
        let ours = try (0..<4).map { try router(joining: [goes[$0 % 2]]) }
        try await withGoPeers(goes) {
            try await withRouters(ours[0], ours[1], ours[2], ours[3]) {
                for router in ours { try await eventually { await router.knownPeers().count == 7 } }
                let everybody = Set(goes.map(\.id)).union(ours.map(\.peerID))
                // Nearest first, without itself, as Go finds them.
                for go in goes {
                    let target = ContentKey(key("anything")).position
                    let expected = everybody.subtracting([go.id]).sorted {
                        KadKey(hashing: $0.bytes).distance(to: target) < KadKey(hashing: $1.bytes).distance(to: target)
                    }
                    try await eventually { try await go.closest(to: key("anything")) == expected }
                }
                for (number, go) in goes.enumerated() { try await go.provide(key("go-\(number)")) }
                for (number, router) in ours.enumerated() { try await router.advertise([key("ours-\(number)")]) }
                for (number, provider) in goes.enumerated() {
                    let name = key("go-\(number)")
                    for go in goes { try await isFound(name, at: [provider.id], asking: go) }
                    for router in ours { try await eventually { await router.found(name) == [provider.id] } }
                }
                for (number, provider) in ours.enumerated() {
                    let name = key("ours-\(number)")
                    for go in goes { try await isFound(name, at: [provider.peerID], asking: go) }
                    for router in ours where router !== provider {
                        try await eventually { await router.found(name) == [provider.peerID] }
                    }
                }
            }
            // All of ours said goodbye.
            let left = Set(goes.map(\.id))
            for go in goes {
                try await eventually { Set(try await go.closest(to: key("anything"))) == left.subtracting([go.id]) }
            }
        }
    }

    /// A Go node that starts again has lost its records; it gets ours again and is found under its identity.
    @Test(arguments: [true, false]) func goStartsAgain(keepingItsIdentity: Bool) async throws {
        let ours = try router()
        try await withRouters(ours) {
            let names = (0..<20).map { key("ours-\($0)") }
            var previous: PeerID?
            for round in 0..<3 {
                let seed = [UInt8](repeating: keepingItsIdentity ? 0x51 : 0x51 + UInt8(round), count: 32)
                let go = try await GoPeer.start(
                    listening: "/ip4/127.0.81.1/tcp/\(reservedPort)", seed: seed, joining: ours.fullAddresses)
                try await withGoPeers([go]) {
                    #expect((go.id == previous) == (keepingItsIdentity && round > 0))
                    if round == 0 { try await ours.advertise(names) }
                    for name in names { try await isFound(name, at: [ours.peerID], asking: go) }
                    try await isTaken(ours, by: go)
                    try await go.provide(key("round-\(round)"))
                    try await eventually { await ours.found(key("round-\(round)")) == [go.id] }
                    // Nobody but the one that runs is left.
                    try await eventually { await ours.knownPeers().map(\.id) == [go.id] }
                }
                previous = go.id
            }
        }
    }

    /// We start again on the same address, at once.
    @Test(arguments: [true, false]) func weStartAgain(keepingOurIdentity: Bool) async throws {
        let go = try await GoPeer.start()
        try await withGoPeers([go]) {
            var identity = NodeIdentity()
            for round in 0..<3 {
                if !keepingOurIdentity { identity = NodeIdentity() }
                let ours = try router(
                    identity: identity, address: "/ip4/127.0.82.1/tcp/\(reservedPort)", joining: [go])
                try await withRouters(ours) {
                    try await ours.joined()
                    try await isTaken(ours, by: go)
                    try await ours.advertise([key("round-\(round)")])
                    try await isFound(key("round-\(round)"), at: [ours.peerID], asking: go)
                    try await go.provide(key("theirs-\(round)"))
                    for earlier in 0...round { #expect(await ours.found(key("theirs-\(earlier)")) == [go.id]) }
                }
            }
        }
    }
}
