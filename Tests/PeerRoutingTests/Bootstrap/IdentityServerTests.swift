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
}
