import NIOConcurrencyHelpers
import NIOCore
import PeerTestKit
import TestSupport
import Testing

@testable import Libp2p

@Suite(.timeLimit(.minutes(10))) struct HostTests {
    private let alice: TestHost
    private let bob: TestHost

    init() throws {
        alice = try TestHost()
        bob = try TestHost()
    }

    @Test func connectIdentifyRequest() async throws {
        try await withHosts(alice, bob) {
            try await alice.connect(to: bob)
            let seen = try await alice.identified(bob.id)
            let back = try await bob.identified(alice.id)
            #expect(seen.protocols.contains(TestHost.protocolID))
            #expect(seen.addresses == bob.host.advertisedAddresses)
            #expect(back.addresses == alice.host.advertisedAddresses)
            #expect(try await alice.request("hello", to: bob.id) == Array("hello".utf8))
            #expect(try await bob.request("later", to: alice.id) == Array("later".utf8))
            #expect(try await bob.request("Later", to: alice.id) == Array("Later".utf8))
            #expect(alice.host.connectedPeers == [bob.id])
            #expect(alice.host.agentVersion(of: bob.id) == "spegel-swift")
        }
    }

    /// Before identify has finished the negotiation is awaited; the answer is the same.
    @Test func requestAtOnce() async throws {
        try await withHosts(alice, bob) {
            alice.host.remember(bob.host.listenAddresses, of: bob.id, for: .seconds(60))
            let answer = try await alice.request("first", to: bob.id)
            #expect(answer == Array("first".utf8))
        }
    }

    @Test func theIDOfAnyPeerIsReturned() async throws {
        try await withHosts(alice, bob) {
            let found = try await alice.host.connect(to: nil, addresses: bob.host.listenAddresses)
            #expect(found == bob.id)
            let named = bob.host.listenAddresses.map { $0.withPeerID(alice.id) }
            await #expect(throws: HostError.self) { try await bob.host.connect(to: nil, addresses: named) }
        }
    }

    @Test func anotherPeerThanExpectedIsRefused() async throws {
        try await withHosts(alice, bob) {
            let other = NodeIdentity().peerID
            alice.host.remember(bob.host.listenAddresses, of: other, for: .seconds(60))
            await #expect(throws: HostError.peerMismatch(expected: other, found: bob.id)) {
                try await alice.host.connect(to: other)
            }
            // The address is forgotten for the one, not for the other.
            #expect(alice.host.addresses(of: other) == [])
            _ = try await alice.host.connect(to: bob.id, addresses: bob.host.listenAddresses, ignoringBackOff: true)
        }
    }

    @Test func ownAddressesAreNotDialled() async throws {
        try await withHosts(alice) {
            await #expect(throws: HostError.dialledSelf) {
                try await alice.host.connect(to: nil, addresses: alice.host.listenAddresses)
            }
            await #expect(throws: HostError.dialledSelf) {
                try await alice.host.connect(to: alice.id, addresses: bob.host.listenAddresses)
            }
        }
    }

    @Test func earlyAndLateMuxer() async throws {
        let late = try TestHost(earlyMuxer: false)
        try await withHosts(alice, bob, late) {
            try await alice.connect(to: bob)
            try await alice.connect(to: late)
            try await late.connect(to: bob)
            // The dialled side has the connection a moment later than the dialler.
            try await eventually {
                bob.host.isConnected(to: alice.id) && late.host.isConnected(to: alice.id)
                    && bob.host.isConnected(to: late.id)
            }
            func usedEarly(_ host: TestHost, _ peer: PeerID) -> Bool? {
                host.host.state.withLockedValue { $0.connections.newest(to: peer)?.usedEarlyMuxer }
            }
            #expect(usedEarly(alice, bob.id) == true)
            #expect(usedEarly(bob, alice.id) == true)
            #expect(usedEarly(alice, late.id) == false)
            #expect(usedEarly(late, bob.id) == false)
            for (host, peer) in [(alice, bob), (alice, late), (late, bob), (bob, late)] {
                #expect(try await host.request("x", to: peer.id) == Array("x".utf8))
            }
        }
    }

    @Test func largeAnswersAndManyAtOnce() async throws {
        try await withHosts(alice, bob) {
            try await alice.connect(to: bob)
            #expect(try await alice.request("S4194304", to: bob.id).count == 4_194_304)
            await #expect(throws: HostError.self) { try await alice.request("S4194305", to: bob.id) }
            try await withThrowingTaskGroup(of: Bool.self) { group in
                for number in 0..<200 {
                    group.addTask {
                        let text = "\(number)" + String(repeating: "x", count: number * 37)
                        return try await alice.request(text, to: bob.id) == Array(text.utf8)
                    }
                }
                for try await isEqual in group { #expect(isEqual) }
            }
            // A stream is no longer counted before its bytes are given back.
            try await eventually {
                [alice, bob].allSatisfy { $0.host.statistics.streams == 0 && $0.host.statistics.bufferedBytes == 0 }
            }
            #expect(alice.host.statistics.connections == 1)
        }
    }

    @Test func batchesFlowThroughTheWindow() async throws {
        try await withHosts(alice, bob) {
            try await alice.connect(to: bob)
            let message = [UInt8(ascii: "A")] + [UInt8](repeating: 1, count: 119)
            try await alice.host.send(
                repeatElement(message, count: 10_000), to: bob.id, protocolID: TestHost.protocolID)
            #expect(bob.silentCount == 10_000)
            // Answers that are not due are discarded.
            try await alice.host.send(
                repeatElement([UInt8](repeating: 2, count: 1000), count: 2000), to: bob.id,
                protocolID: TestHost.protocolID)
            try await alice.host.send([], to: bob.id, protocolID: TestHost.protocolID)
            // The end is reported before the stream's bytes are released.
            try await eventually { alice.host.statistics.bufferedBytes == 0 }
        }
    }

    @Test func refusedBatchesAreReported() async throws {
        try await withHosts(alice, bob) {
            try await alice.connect(to: bob)
            let messages = [[UInt8(ascii: "A")], [UInt8(ascii: "R")], [UInt8(ascii: "A")]]
            let error = await #expect(throws: HostError.self) {
                try await alice.host.send(messages, to: bob.id, protocolID: TestHost.protocolID)
            }
            guard case .streamReset = error else {
                Issue.record("streamReset expected, got \(String(describing: error))")
                return
            }
            // The connection goes on.
            #expect(try await alice.request("x", to: bob.id) == [UInt8(ascii: "x")])
        }
    }

    @Test func failuresOfRequests() async throws {
        let impatient = try TestHost { $0.limits.requestTimeout = .milliseconds(200) }
        try await withHosts(impatient, alice, bob) {
            try await impatient.connect(to: bob)
            await #expect(throws: HostError.self) { try await impatient.request("R", to: bob.id) }
            await #expect(throws: HostError.self) { try await impatient.request("N", to: bob.id) }
            try await alice.connect(to: bob)
            _ = try await alice.identified(bob.id)
            await #expect(throws: HostError.protocolNotSupported("/other/1.0.0")) {
                try await alice.host.request([1], to: bob.id, protocolID: "/other/1.0.0")
            }
            await #expect(throws: HostError.noAddresses(alice.id)) { try await impatient.request("x", to: alice.id) }
        }
    }

    @Test func aCancelledRequestReturnsAtOnce() async throws {
        try await withHosts(alice, bob) {
            try await alice.connect(to: bob)
            let task = Task { try await alice.request("N", to: bob.id) }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
    }

    @Test func pings() async throws {
        try await withHosts(alice, bob) {
            try await alice.connect(to: bob)
            #expect(try await alice.host.ping(bob.id) > .zero)
            #expect(try await bob.host.ping(alice.id) > .zero)
        }
    }

    @Test func disconnectsAreReportedAndRepaired() async throws {
        try await withHosts(alice, bob) {
            try await alice.connect(to: bob)
            _ = try await alice.identified(bob.id)
            _ = try await bob.identified(alice.id)
            await bob.host.disconnect(alice.id)
            try await alice.disconnected(bob.id)
            try await bob.disconnected(alice.id)
            #expect(!alice.host.isConnected(to: bob.id))
            // The addresses stay for a while, so a request dials again.
            #expect(try await alice.request("again", to: bob.id) == Array("again".utf8))
        }
    }

    @Test func bothDiallingAtOnceWorks() async throws {
        try await withHosts(alice, bob) {
            for _ in 0..<20 {
                async let one: Void = alice.connect(to: bob)
                async let other: Void = bob.connect(to: alice)
                _ = try await (one, other)
                #expect(try await alice.request("x", to: bob.id) == [UInt8(ascii: "x")])
                #expect(try await bob.request("y", to: alice.id) == [UInt8(ascii: "y")])
                await alice.host.disconnect(bob.id)
                await bob.host.disconnect(alice.id)
                // A connection that one side has closed may be in its handshake at the other, and would be taken for
                // one of the next round. It counts as secured before it no longer counts as unsecured.
                try await eventually {
                    [alice, bob].allSatisfy {
                        $0.host.statistics.unsecuredConnections == 0 && $0.host.statistics.connections == 0
                    }
                }
            }
        }
    }

    @Test func concurrentCallsShareTheDial() async throws {
        try await withHosts(alice, bob) {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<50 { group.addTask { try await alice.connect(to: bob) } }
                try await group.waitForAll()
            }
            #expect(alice.host.statistics.connections == 1)
        }
    }

    @Test func failedAddressesAreInBackOffAndOthersAreDialled() async throws {
        try await withHosts(alice, bob) {
            // No listener there.
            let dead = try TestHost()
            let addresses = [try Multiaddr(parsing: "/ip4/127.0.78.1/tcp/\(reservedPort)")]
            await #expect(throws: HostError.self) { try await alice.host.connect(to: dead.id, addresses: addresses) }
            await #expect(throws: HostError.backingOff(dead.id)) {
                try await alice.host.connect(to: dead.id, addresses: addresses)
            }
            _ = try await alice.host.connect(to: bob.id, addresses: addresses + bob.host.listenAddresses)
            let error = await #expect(throws: HostError.self) {
                try await alice.host.connect(to: dead.id, addresses: addresses, ignoringBackOff: true)
            }
            #expect(error?.description.contains("refused") == true)
        }
    }

    @Test func listensOnBothFamilies() async throws {
        let dual = try TestHost(listen: ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"])
        try await withHosts(alice, bob, dual) {
            let addresses = dual.host.advertisedAddresses
            let v4 = addresses.filter { $0.ipAddress == .loopbackV4 }
            let v6 = addresses.filter { $0.ipAddress == .loopbackV6 }
            try #require(v4.count == 1 && v6.count == 1)
            #expect(try await alice.host.connect(to: nil, addresses: v4) == dual.id)
            #expect(try await bob.host.connect(to: nil, addresses: v6) == dual.id)
            _ = try await dual.identified(bob.id)
            #expect(try await dual.request("x", to: bob.id) == [UInt8(ascii: "x")])
        }
    }

    @Test func unusableListenAddressesAreReported() async throws {
        for text in ["/ip4/192.0.2.1/tcp/0", "/dns4/localhost/tcp/1"] {
            let host = try TestHost(listen: [text])
            let error = await #expect(throws: HostError.self) { try await host.host.start() }
            #expect(error?.description.contains(text) == true)
        }
    }

    @Test func pushHasNewAddresses() async throws {
        let moving = try TestHost(listen: ["/ip4/0.0.0.0/tcp/0"])
        try await withHosts(alice, moving) {
            _ = try await alice.host.connect(
                to: moving.id, addresses: moving.host.advertisedAddresses.filter { $0.ipAddress == .loopbackV4 })
            _ = try await alice.identified(moving.id)
            _ = try await moving.identified(alice.id)
            let address = try #require(IPAddress("10.99.0.7"))
            moving.host.refreshAddresses(InterfaceAddresses(all: [address, .loopbackV4]))
            let (protocols, addresses) = try await alice.identified(moving.id)
            #expect(protocols.contains(TestHost.protocolID))
            #expect(addresses.map(\.ipAddress).contains(address))
            #expect(alice.host.addresses(of: moving.id).map(\.ipAddress).contains(address))
            moving.host.refreshAddresses(InterfaceAddresses(all: [address, .loopbackV4]))
        }
    }

    @Test func loopbackIsAdvertisedOnlyWhenConfigured() async throws {
        let modest = try TestHost { $0.advertiseLoopback = false }
        try await withHosts(alice, modest) {
            #expect(modest.host.advertisedAddresses == [])
            try await alice.connect(to: modest)
            // What was dialled is known all the same.
            #expect(try await alice.identified(modest.id).addresses == modest.host.listenAddresses)
            #expect(try await modest.identified(alice.id).addresses == [])
        }
    }

    @Test func keepAliveClosesSilentConnections() async throws {
        let watchful = try TestHost { configuration in
            configuration.limits.keepAliveInterval = .milliseconds(100)
            configuration.limits.keepAliveTimeout = .seconds(15)
        }
        try await withHosts(watchful, bob) {
            // Bob answers, so the connection outlives many intervals.
            try await watchful.connect(to: bob)
            _ = try await watchful.identified(bob.id)
            // This one does not.
            let dead = try await ScriptedPeer.connect(to: watchful.host)
            try await dead.upgradeLikeGo()
            await dead.waitForClose()
            #expect(watchful.host.isConnected(to: bob.id))
        }
    }

    @Test func connectionsPerPeerAreBounded() async throws {
        try await withHosts(alice) {
            let identity = NodeIdentity()
            var peers: [ScriptedPeer] = []
            for _ in 0..<6 {
                let peer = try await ScriptedPeer.connect(to: alice.host)
                try await peer.upgradeLikeGo(identity: identity)
                peers.append(peer)
            }
            // Which two: those whose handshakes ended first at the host, which need not be the order they began in.
            let closed = NIOLockedValueBox(0)
            for peer in peers {
                peer.channel.closeFuture.whenComplete { _ in closed.withLockedValue { $0 += 1 } }
            }
            try await eventually { closed.withLockedValue { $0 } == 2 && alice.host.statistics.connections == 4 }
            for peer in peers { await peer.close() }
        }
    }

    @Test func idleConnectionsMakeRoomForNewOnes() async throws {
        let small = try TestHost { $0.limits.connections = 3 }
        try await withHosts(small) {
            var peers: [ScriptedPeer] = []
            for _ in 0..<5 {
                let peer = try await ScriptedPeer.connect(to: small.host)
                try await peer.upgradeLikeGo()
                // Its identify stream is reset: the connection is idle.
                try await small.identifyRefused(peer)
                peers.append(peer)
            }
            await peers[0].waitForClose()
            await peers[1].waitForClose()
            #expect(small.host.statistics.connections == 3)
            for peer in peers { await peer.close() }
        }
    }

    @Test func shutdownClosesEverything() async throws {
        let host = try TestHost()
        try await host.host.start()
        try await bob.host.start()
        try await bob.connect(to: host)
        let raw = try await ScriptedPeer.connect(to: host.host)
        // Bob's is not secured at first either.
        try await eventually {
            host.host.statistics.connections == 1 && host.host.statistics.unsecuredConnections == 1
        }
        await host.host.shutdown()
        await raw.waitForClose()
        try await bob.disconnected(host.id)
        await #expect(throws: HostError.shutDown) { try await host.host.connect(to: nil, addresses: []) }
        try await eventually { host.host.state.withLockedValue { $0.channels.connectionCount == 0 } }
        await bob.host.shutdown()
    }
}

extension TestHost {
    /// Resets the identify stream this host opens to the peer.
    func identifyRefused(_ peer: ScriptedPeer) async throws {
        while let event = try await peer.nextEvent() {
            if case .opened(let id) = event {
                peer.session.reset(id)
                // Its answer says that the host has seen the reset, too.
                peer.session.ping(7)
                try await peer.sendSession()
            } else if event == .pong(7) {
                return
            }
        }
    }
}
