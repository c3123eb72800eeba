import NIOCore
import PeerTestKit
import TestSupport
import Testing

@testable import Libp2p

/// Peers that break the protocols: each loses its stream or connection, other peers are not affected, and nothing
/// grows past its bound.
@Suite(.serialized, .timeLimit(.minutes(10))) struct HostilePeerTests {
    /// Runs the attack, then sees that an honest peer is served and that nothing is held for the attacker.
    private func withNode(
        _ configure: (inout HostConfiguration) -> Void = { _ in },
        attack: (TestHost) async throws -> Void
    ) async throws {
        let node = try TestHost(configure: configure)
        let regular = try TestHost()
        try await withHosts(node, regular) {
            try await regular.connect(to: node)
            try await eventually { node.host.isConnected(to: regular.id) }
            try await attack(node)
            let answer = try await regular.request("still there?", to: node.id)
            #expect(answer == Array("still there?".utf8))
            try await eventually { node.host.statistics.connections == 1 && node.host.statistics.bufferedBytes == 0 }
        }
    }

    private func frame(
        _ type: YamuxHeader.FrameType, _ flags: YamuxHeader.Flags, _ id: UInt32, _ value: UInt32
    ) -> [UInt8] {
        var buffer = ByteBuffer()
        YamuxHeader(type, flags, streamID: id, value: value).write(to: &buffer)
        return Array(buffer.readableBytesView)
    }

    /// A peer whose connection is secured at the node, too, which is a moment later than at the peer.
    private func secured(_ node: TestHost) async throws -> ScriptedPeer {
        let identity = NodeIdentity()
        let peer = try await ScriptedPeer.connect(to: node.host)
        try await peer.upgradeLikeGo(identity: identity)
        try await eventually { node.host.isConnected(to: identity.peerID) }
        return peer
    }

    @Test func slowHandshakesEndAndDoNotFillTheNode() async throws {
        try await withNode { configuration in
            configuration.limits.upgradeTimeout = .seconds(8)
            configuration.limits.unsecuredConnections = 10
        } attack: { node in
            var peers: [ScriptedPeer] = []
            for _ in 0..<30 { peers.append(try await ScriptedPeer.connect(to: node.host)) }
            #expect(node.host.statistics.unsecuredConnections <= 10)
            for peer in peers {
                // A byte now and then does not help.
                try? await peer.send([19])
                await peer.waitForClose()
            }
            try await eventually { node.host.statistics.unsecuredConnections == 0 }
        }
    }

    /// What one machine may take: a share of the connections, busy or not, and of those that are not secured yet.
    @Test func oneSourceHasItsShare() async throws {
        try await withNode { configuration in
            configuration.limits.connections = 8
            configuration.limits.connectionsPerSource = 4
            configuration.limits.unsecuredConnections = 8
            configuration.limits.unsecuredPerSource = 4
            configuration.limits.upgradeTimeout = .seconds(20)
            configuration.limits.countsLoopback = true
        } attack: { node in
            var peers: [ScriptedPeer] = []
            for _ in 0..<12 {
                let peer = try await ScriptedPeer.connect(to: node.host, from: "127.0.9.1")
                let identity = NodeIdentity()
                try await peer.upgradeLikeGo(identity: identity)
                // One stream that stays open, so that the connection is busy.
                try? await peer.sendPlain(frame(.windowUpdate, .syn, 1, 0))
                peers.append(peer)
            }
            try await eventually { node.host.statistics.connections <= 5 }
            // Silent ones, more than may be in all.
            for _ in 0..<12 { peers.append(try await ScriptedPeer.connect(to: node.host, from: "127.0.9.2")) }
            #expect(node.host.statistics.unsecuredConnections <= 4)
            // Others still get in.
            let other = NodeIdentity()
            let newcomer = try await ScriptedPeer.connect(to: node.host, from: "127.0.9.3")
            try await newcomer.upgradeLikeGo(identity: other)
            try await eventually { node.host.isConnected(to: other.peerID) }
            for peer in peers + [newcomer] { await peer.close() }
        }
    }

    /// When all connections are taken, busy ones of the machine that has most make room.
    @Test func busyConnectionsOfOneMachineMakeRoom() async throws {
        try await withNode { configuration in
            configuration.limits.connections = 6
            configuration.limits.connectionsPerSource = 5
            configuration.limits.countsLoopback = true
        } attack: { node in
            var peers: [ScriptedPeer] = []
            for _ in 0..<5 {
                let identity = NodeIdentity()
                let peer = try await ScriptedPeer.connect(to: node.host, from: "127.0.9.1")
                try await peer.upgradeLikeGo(identity: identity)
                try await eventually { node.host.isConnected(to: identity.peerID) }
                try await peer.sendPlain(frame(.windowUpdate, .syn, 1, 0))
                peers.append(peer)
            }
            try await eventually { node.host.statistics.streams >= 5 }
            let other = NodeIdentity()
            let newcomer = try await ScriptedPeer.connect(to: node.host, from: "127.0.9.3")
            try await newcomer.upgradeLikeGo(identity: other)
            try await eventually { node.host.isConnected(to: other.peerID) }
            #expect(node.host.statistics.connections <= 6)
            for peer in peers + [newcomer] { await peer.close() }
        }
    }

    /// A member of the routing table keeps its connection, however long it has been idle.
    @Test func protectedPeersAreNotClosedForOthers() async throws {
        let node = try TestHost {
            $0.limits.connections = 4
            $0.limits.countsLoopback = true
        }
        let member = try TestHost()
        try await withHosts(node, member) {
            try await member.connect(to: node)
            try await eventually { node.host.isConnected(to: member.id) }
            node.host.setProtected(true, member.id)
            // Idle as well, and newer, each of a machine of its own.
            var others: [TestHost] = []
            for number in 1...8 {
                let other = try TestHost(listen: ["/ip4/127.0.8.\(number)/tcp/0"])
                try await other.host.start()
                others.append(other)
                try await other.connect(to: node)
                try await eventually { node.host.isConnected(to: other.id) }
                _ = try await other.request("idle from now on", to: node.id)
            }
            #expect(node.host.isConnected(to: member.id))
            for other in others { await other.host.shutdown() }
        }
    }

    /// Messages that are taken one by one, later and on another thread: the window opens as they are.
    @Test func aBurstOfMessagesDoesNotStandStill() async throws {
        let (node, sender) = (try TestHost(), try TestHost())
        try await withHosts(node, sender) {
            try await sender.connect(to: node)
            // Several times what fits into a window, which nothing but the messages' own progress opens in time.
            let messages = (0..<1500).map { _ in [UInt8(ascii: "I")] + [UInt8](repeating: 1, count: 1000) }
            try await sender.host.send(messages, to: node.id, protocolID: TestHost.protocolID)
        }
    }

    @Test func garbageInsteadOfAnyProtocol() async throws {
        var random = SplitMix64(seed: 16)
        let header = ScriptedPeer.acceptance("/noise")
        let attacks: [[UInt8]] =
            (0..<20).map { _ in (0..<500).map { _ in UInt8.random(in: 0...255, using: &random) } } + [
                [UInt8](repeating: 0xff, count: 100_000), Array("GET / HTTP/1.1\r\n\r\n".utf8),
                header + [0xff, 0xff], header + [0, 0], header + [0, 31] + [UInt8](repeating: 9, count: 31),
                header + [0, 32] + [UInt8](repeating: 0, count: 32),
                (0..<17).reduce(into: Array(header.dropLast(8))) { $0 += [3, 0x2f, 0x61 + UInt8($1), 0x0a] },
            ]
        try await withNode {
            $0.limits.upgradeTimeout = .seconds(8)
        } attack: { node in
            for attack in attacks {
                let peer = try await ScriptedPeer.connect(to: node.host)
                try? await peer.send(attack)
                await peer.waitForClose()
            }
        }
    }

    @Test func framesThatBreakTheSession() async throws {
        let violations: [[UInt8]] = [
            frame(.windowUpdate, .syn, 2, 0), frame(.data, [.syn], 1, 300_000),
            frame(.windowUpdate, .syn, 1, 0) + frame(.windowUpdate, [], 1, .max),
            [7] + frame(.ping, .syn, 0, 0).dropFirst(), [0, 0x55] + frame(.ping, .syn, 0, 0).dropFirst(2),
        ]
        try await withNode { node in
            for violation in violations {
                let peer = try await secured(node)
                try await peer.sendPlain(violation)
                await peer.waitForClose()
            }
            // And bytes that do not decrypt.
            let peer = try await secured(node)
            try await peer.send([0, 40] + [UInt8](repeating: 1, count: 40))
            await peer.waitForClose()
        }
    }

    /// A frame that claims 4 GiB for a stream that is not there is read and forgotten as it comes.
    @Test func endlessFrameForAnUnknownStream() async throws {
        try await withNode { node in
            let peer = try await secured(node)
            try await peer.sendPlain(frame(.data, [], 99, .max))
            for _ in 0..<40 {
                try await peer.sendPlain([UInt8](repeating: 1, count: 60_000))
                #expect(node.host.statistics.bufferedBytes < 1 << 20)
            }
            await peer.close()
        }
    }

    @Test func tenThousandStreams() async throws {
        try await withNode {
            // Those that fill the bound stay, so that it can be seen.
            $0.limits.negotiationTimeout = .hours(1)
        } attack: { node in
            let peer = try await secured(node)
            var id: UInt32 = 1
            for round in 0..<30 {
                var bytes: [UInt8] = []
                for _ in 0..<1000 {
                    bytes += frame(.windowUpdate, .syn, id, 0)
                    // Half of them are reset at once, the others stay until the bound refuses them.
                    if round % 2 == 0 { bytes += frame(.windowUpdate, .rst, id, 0) }
                    id += 2
                }
                try await peer.sendPlain(bytes)
                #expect(node.host.statistics.streams <= 600)
            }
            try await eventually { node.host.statistics.streams >= 64 }
            #expect(node.host.statistics.streams <= 600)
            await peer.close()
        }
    }

    /// A peer that sends requests without ever reading the answers.
    @Test func aPeerThatNeverReads() async throws {
        try await withNode { configuration in
            configuration.limits.writeTimeout = .milliseconds(500)
            configuration.limits.outboundBufferMaximum = 64 << 10
        } attack: { node in
            let peer = try await secured(node)
            try await peer.channel.setOption(.autoRead, value: false).get()
            // More than the sockets' own buffers take, for as much window as could be wished for. They are full after
            // the first answer, and half a second later the connection is closed, whatever has been sent by then.
            for _ in 0..<8 {
                let id = try #require(value { peer.session.open() })
                var request = ByteBuffer(
                    bytes: Array(ScriptedPeer.acceptance(TestHost.protocolID))
                        + DelimitedMessage.encode(Array("S4000000".utf8)))
                _ = value { peer.session.write(&request, on: id) }
                try peer.sendPlainWithoutWaiting(Array(peer.session.takeOutput().readableBytesView))
                try peer.sendPlainWithoutWaiting(frame(.windowUpdate, [], id, 1 << 30))
            }
            // And more to answer, which by then is not read any more.
            var bytes: [UInt8] = []
            for number in 0..<20_000 as Range<UInt32> { bytes += frame(.windowUpdate, .syn, 1001 + 2 * number, 0) }
            try peer.sendPlainWithoutWaiting(bytes)
            try await eventually { node.host.statistics.connections == 1 }
            await peer.close()
        }
    }

    @Test func messagesOverTheLengthLimit() async throws {
        try await withNode { node in
            let peer = try await secured(node)
            let lengths: [[UInt8]] = [
                Varint.encode(UInt64(node.host.limits.requestLength) + 1), Varint.encode(1 << 40),
                [UInt8](repeating: 0xff, count: 8) + [0x7f], [UInt8](repeating: 0x80, count: 10), [0x80, 0x00],
            ]
            for length in lengths {
                let id = try await peer.openLazily(TestHost.protocolID, length)
                let (_, wasReset) = try await peer.collect(id)
                #expect(wasReset)
            }
            // The connection itself is in order.
            let id = try await peer.openLazily(TestHost.protocolID, DelimitedMessage.encode([1]))
            peer.session.finish(id)
            try await peer.sendSession()
            let (bytes, wasReset) = try await peer.collect(id)
            #expect(!wasReset)
            #expect(bytes.suffix(2) == [1, 1])
            await peer.close()
        }
    }

    /// Unfinished messages on many streams stay below the node's bound, and go with their connection.
    @Test func unfinishedMessagesAreBounded() async throws {
        try await withNode {
            $0.limits.bufferedBytes = 1 << 20
            $0.limits.messageStreamIdleTimeout = .hours(1)
        } attack: { node in
            var peers: [ScriptedPeer] = []
            for _ in 0..<2 {
                let peer = try await secured(node)
                peers.append(peer)
                for _ in 0..<60 {
                    _ = try await peer.openLazily(
                        TestHost.protocolID, Varint.encode(65_000) + [UInt8](repeating: 1, count: 40_000))
                    #expect(node.host.statistics.bufferedBytes <= 1 << 20)
                }
            }
            try await eventually { node.host.statistics.bufferedBytes > 900_000 }
            for peer in peers { await peer.close() }
        }
    }

    @Test func tooManyStreamsOfOneKindAreRefused() async throws {
        try await withNode { node in
            let peer = try await secured(node)
            var ids: [UInt32] = []
            for _ in 0..<65 { ids.append(try await peer.openLazily(TestHost.protocolID, [5])) }
            let (_, wasReset) = try await peer.collect(try #require(ids.last))
            #expect(wasReset)
            await peer.close()
        }
    }

    @Test func negotiationsWithoutAgreement() async throws {
        try await withNode {
            $0.limits.negotiationTimeout = .milliseconds(200)
        } attack: { node in
            let peer = try await secured(node)
            // Seventeen proposals; no header; nothing at all.
            let id = try await peer.openLazily(
                "/p0", (1..<17).flatMap { [4, 0x2f, 0x70, 0x60 + UInt8($0), 0x0a] as [UInt8] })
            #expect(try await peer.collect(id).wasReset)
            let bare = try #require(value { peer.session.open() })
            var nonsense = ByteBuffer(bytes: [3, 0x61, 0x62, 0x0a])
            _ = value { peer.session.write(&nonsense, on: bare) }
            try await peer.sendSession()
            #expect(try await peer.collect(bare).wasReset)
            let silent = try #require(value { peer.session.open() })
            try await peer.sendSession()
            #expect(try await peer.collect(silent).wasReset)
            await peer.close()
        }
    }

    @Test func invalidIdentify() async throws {
        let identity = NodeIdentity()
        var writer = ProtobufWriter()
        writer.bytes(1, NodeIdentity().publicKey.encoded)
        for _ in 0..<50 { writer.bytes(2, [UInt8](repeating: 0xff, count: 20)) }
        writer.bytes(2, Multiaddr(.v4(0x0a00_0001), tcpPort: 1).bytes)
        writer.bytes(2, Multiaddr(.v4(0x7f00_0001), tcpPort: 1, peer: NodeIdentity().peerID).bytes)
        writer.bytes(8, [1, 2, 3])
        writer.string(3, TestHost.protocolID)
        let answers: [[UInt8]] = [
            DelimitedMessage.encode(writer.bytes), Varint.encode(1 << 30), [], DelimitedMessage.encode([0xff, 0xff]),
            (0..<20).flatMap { _ in DelimitedMessage.encode([]) },
        ]
        try await withNode { node in
            for (number, answer) in answers.enumerated() {
                let peer = try await ScriptedPeer.connect(to: node.host)
                try await peer.upgradeLikeGo(identity: identity)
                while let event = try await peer.nextEvent() {
                    guard case .opened(let id) = event else { continue }
                    var bytes = ByteBuffer(
                        bytes: ScriptedPeer.acceptance(IdentifyMessage.protocolID) + answer)
                    _ = value { peer.session.write(&bytes, on: id) }
                    peer.session.finish(id)
                    try await peer.sendSession()
                    break
                }
                if number == 0 {
                    let seen = try await node.identified(identity.peerID)
                    #expect(seen.addresses.map(\.description) == ["/ip4/10.0.0.1/tcp/1"])
                } else {
                    // A failed identify does not end the connection.
                    let id = try await peer.openLazily(TestHost.protocolID, DelimitedMessage.encode([1]))
                    peer.session.finish(id)
                    try await peer.sendSession()
                    #expect(try await peer.collect(id).bytes.last == 1)
                }
                await peer.close()
                try await eventually { !node.host.isConnected(to: identity.peerID) }
            }
        }
    }
}
