import NIOCore
import PeerTestKit
import TestSupport
import Testing

@testable import Libp2p

/// What a connection keeps in memory, while it is there and afterwards.
@Suite(.timeLimit(.minutes(10))) struct ConnectionLifetimeTests {
    /// What there still is of a connection. Belongs to its event loop.
    private final class Remains {
        weak var connection: Connection?
        weak var handle: ConnectionHandle?

        init(of connection: Connection) {
            self.connection = connection
            handle = connection.handle
        }
    }

    /// Asks the connection to a peer something on its event loop.
    private func ask<Answer: Sendable>(
        _ host: TestHost, about peer: PeerID, _ question: @escaping @Sendable (Connection) -> Answer
    ) async throws -> Answer {
        let handle = try #require(host.host.state.withLockedValue { $0.connections.newest(to: peer) })
        return await withCheckedContinuation { continuation in
            handle.run { continuation.resume(returning: question($0)) }
        }
    }

    @Test func nothingIsLeftOfAClosedConnection() async throws {
        let alice = try TestHost()
        let bob = try TestHost()
        try await withHosts(alice, bob) {
            try await alice.connect(to: bob)
            _ = try await alice.identified(bob.id)
            _ = try await bob.identified(alice.id)
            _ = try await alice.request("hello", to: bob.id)
            for (host, peer) in [(alice, bob.id), (bob, alice.id)] {
                let (eventLoop, remains) = try await ask(host, about: peer) { connection in
                    let remains = Remains(of: connection)
                    return (connection.eventLoop, NIOLoopBound(remains, eventLoop: connection.eventLoop))
                }
                #expect(try await eventLoop.submit { remains.value.handle != nil }.get())
                await host.host.disconnect(peer)
                try await eventually {
                    try await eventLoop.submit { remains.value.connection == nil && remains.value.handle == nil }.get()
                }
                if host.id == alice.id {
                    try await eventually { !bob.host.isConnected(to: alice.id) }
                    try await bob.connect(to: alice)
                }
            }
        }
    }

    /// A peer whose every message ends inside a yamux header cannot make us keep what it sent before.
    @Test func whatWasReadIsNotKept() async throws {
        let alice = try TestHost()
        let identity = NodeIdentity()
        try await withHosts(alice) {
            let peer = try await ScriptedPeer.connect(to: alice.host)
            try await peer.upgradeLikeGo(identity: identity)
            // Of a stream that does not exist: passed over.
            var buffer = ByteBuffer()
            YamuxHeader(.data, [], streamID: 99, value: 10_000).write(to: &buffer)
            buffer.writeRepeatingByte(0, count: 10_000)
            let frame = Array(buffer.readableBytesView)
            let (beginning, rest) = (frame.prefix(5), frame.dropFirst(5))
            try await peer.sendPlain(Array(beginning))
            for _ in 0..<200 { try await peer.sendPlain(Array(rest + beginning)) }
            var ping = ByteBuffer()
            YamuxHeader(.ping, .syn, streamID: 0, value: 7).write(to: &ping)
            try await peer.sendPlain(Array(rest + ping.readableBytesView + beginning))
            while let event = try await peer.nextEvent(), event != .pong(7) {}
            #expect(try await ask(alice, about: identity.peerID) { $0.plaintextCapacity } <= 1024)
            await peer.close()
        }
    }
}
