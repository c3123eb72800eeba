import Foundation
import Logging
import NIOCore
import NIOPosix
import PeerTestKit
import Testing

@testable import PeerRouting

@Suite(.timeLimit(.minutes(10))) struct IdentityServerTests {
    @Test func withoutIPv6TheIPv4WildcardIsTaken() async throws {
        for code in [EAFNOSUPPORT, EADDRNOTAVAIL] {
            let host = try await IdentityServer.firstAvailable(["::", "0.0.0.0"]) { host in
                if host == "::" { throw IOError(errnoCode: code, reason: "bind") }
                return host
            }
            #expect(host == "0.0.0.0")
        }
        #expect(try await IdentityServer.firstAvailable(["::", "0.0.0.0"]) { $0 } == "::")
    }

    @Test func otherErrorsAreNotPassedOver() async throws {
        let error = await #expect(throws: IOError.self) {
            try await IdentityServer.firstAvailable(["::", "0.0.0.0"]) { host -> String in
                throw IOError(errnoCode: EADDRINUSE, reason: host)
            }
        }
        #expect(error?.errnoCode == EADDRINUSE)
        // An address that was asked for is not replaced by another.
        await #expect(throws: IOError.self) {
            try await IdentityServer.firstAvailable(["::1"]) { host -> String in
                throw IOError(errnoCode: EADDRNOTAVAIL, reason: host)
            }
        }
    }

    /// As many clients as the server takes send a head and no body: each has its answer and is closed, so that there is room.
    @Test func aBodyIsNotWaitedFor() async throws {
        let id = NodeIdentity().peerID
        let server = try await IdentityServer.start(
            host: "127.0.0.1", port: 0, certificateDirectory: nil,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, connectionTimeout: .hours(1)
        ) { (id, [Multiaddr(.v4(0x0a01_0203), tcpPort: 5001)]) }
        let address = try #require(server.localAddress)
        for _ in 0...IdentityServer.maximumConnections {
            let answer = try await Self.exchange(
                "GET /id HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", with: address)
            #expect(answer.hasPrefix("HTTP/1.1 200"))
            #expect(answer.contains(id.description))
        }
        await server.stop()
    }

    /// A head that never ends costs a connection for a limited time.
    @Test func everyConnectionHasAnEnd() async throws {
        let server = try await IdentityServer.start(
            host: "127.0.0.1", port: 0, certificateDirectory: nil,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, connectionTimeout: .milliseconds(100)
        ) { (NodeIdentity().peerID, []) }
        let address = try #require(server.localAddress)
        #expect(try await Self.exchange("GET /id HTTP/1.1\r\nHost:", with: address) == "")
        await server.stop()
    }

    /// Sends a text and reads until the server closes the connection.
    private static func exchange(_ text: String, with address: SocketAddress) async throws -> String {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).connect(to: address) {
            channel in
            channel.eventLoop.makeCompletedFuture {
                try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
            }
        }
        return try await channel.executeThenClose { inbound, outbound in
            try await outbound.write(ByteBuffer(string: text))
            var answer = ""
            for try await piece in inbound { answer += String(buffer: piece) }
            return answer
        }
    }

    @Test func withoutAHostIPv4IsServed() async throws {
        let id = NodeIdentity().peerID
        let server = try await IdentityServer.start(
            host: "", port: 0, certificateDirectory: nil, eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        ) { (id, [Multiaddr(.v4(0x0a01_0203), tcpPort: 5001)]) }
        let port = try #require(server.localAddress?.port)
        let source = HTTPBootstrapSource.patient("http://127.0.0.1:\(port)/id")
        #expect(try await source.candidates().map(\.id) == [id])
        await server.stop()
    }

    /// One machine has a share of the connections.
    @Test func aSourceHasItsShare() throws {
        let shares = ConnectionShares(limit: 5, limitPerSource: 2)
        let (one, two) = (IPAddress.v4(1), IPAddress.v4(2))
        #expect(shares.take(one) && shares.take(one) && !shares.take(one))
        #expect(shares.take(two) && shares.take(nil) && shares.take(nil) && !shares.take(nil))
        shares.giveBack(one)
        #expect(shares.take(one) && !shares.take(two))
    }
}
