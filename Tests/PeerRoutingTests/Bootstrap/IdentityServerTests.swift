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

    /// A body that never ends is not waited for: the answer comes at the head, and the connection ends.
    @Test func answersBeforeABodyHasCome() async throws {
        let id = NodeIdentity().peerID
        let server = try await IdentityServer.start(
            host: "127.0.0.1", port: 0, certificateDirectory: nil,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        ) { (id, [Multiaddr(.v4(0x0a01_0203), tcpPort: 5001)]) }
        let address = try #require(server.localAddress)
        let inbox = Inbox<ByteBuffer>()
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Collector(inbox))
                }
            }
            .connect(to: address).get()
        try await channel.writeAndFlush(
            ByteBuffer(string: "GET /id HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx"))
        var answer = ""
        while let bytes = await inbox.next() { answer += String(buffer: bytes) }
        #expect(answer.hasPrefix("HTTP/1.1 200 OK"))
        #expect(answer.contains("\(id)"))
        await server.stop()
    }

    private final class Collector: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let inbox: Inbox<ByteBuffer>

        init(_ inbox: Inbox<ByteBuffer>) { self.inbox = inbox }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { inbox.put(unwrapInboundIn(data)) }
        func channelInactive(context: ChannelHandlerContext) { inbox.close() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
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
