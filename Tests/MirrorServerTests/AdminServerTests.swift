import HTTPTestKit
import NIOCore
import NIOPosix
import Testing

@testable import MirrorServer

@Suite struct AdminServerTests {
    private struct Failure: Error {}

    @Test func routesByPath() async throws {
        let server = AdminServer(
            configuration: HTTPServerConfiguration(
                listen: [ListenAddress(host: "127.0.0.1", port: 0)],
                eventLoopGroup: MultiThreadedEventLoopGroup.singleton),
            routes: [
                .init("/metrics") { _ in
                    .init(contentType: "text/plain; version=0.0.4", body: ByteBuffer(string: "m 1\n"))
                },
                .init("/debug/web/") { request in .init(body: ByteBuffer(string: String(request.path))) },
                .init("/debug/web/images") { request in .init(body: ByteBuffer(string: String(request.query ?? ""))) },
                .init("/broken") { _ in throw Failure() },
            ], logger: quiet)
        let port = try #require(try await server.start().first?.port)
        try await RawClient.with(port: port) { client in
            let metrics = try await client.request("/metrics")
            #expect(metrics.status == 200)
            #expect(metrics.text == "m 1\n")
            #expect(metrics["content-type"] == "text/plain; version=0.0.4")
            #expect(try await client.request("/metrics", method: "HEAD")["content-length"] == "4")
            #expect(try await client.request("/debug/web/").text == "/debug/web/")
            #expect(try await client.request("/debug/web/style.css").text == "/debug/web/style.css")
            #expect(try await client.request("/debug/web/images?a=1").text == "a=1")
            #expect(try await client.request("/debug/web").status == 404)
            #expect(try await client.request("/broken").status == 500)
            #expect(try await client.request("/metrics", method: "PUT").status == 405)
            #expect(try await client.request("/metrics/x").status == 404)
        }
        await server.shutdown(gracePeriod: .zero)
        #expect(server.addresses.isEmpty)
    }
}
