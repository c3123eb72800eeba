import ContentStore
import Foundation
import HTTPTestKit
import NIOCore
import NIOPosix
import OCIDistribution
import Synchronization
import TestSupport
import Testing

@testable import MirrorServer

/// Connections over real sockets: slow clients, files that shrink, limits, shutdown.
@Suite struct ConnectionLifetimeTests {
    private func big(_ megabytes: Int = 24) throws -> FileStore { try FileStore(size: megabytes * 1024 * 1024) }

    private func get(_ path: String) -> String { "GET \(path) HTTP/1.1\r\nHost: a\r\n\r\n" }

    @Test func hundredPipelinedRequestsAreAnsweredInOrder() async throws {
        let fixture = try await Fixture()
        try await withServer(store: fixture.store) { _, port in
            try await RawClient.with(port: port) { client async throws in
                var text = ""
                for index in 0..<100 {
                    switch index % 3 {
                    case 0: text += get(fixture.tagPath)
                    case 1:
                        text += "GET \(fixture.layerPath) HTTP/1.1\r\nHost: a\r\nRange: bytes=\(index)-\(index)\r\n\r\n"
                    default: text += "HEAD \(fixture.layerPath) HTTP/1.1\r\nHost: a\r\n\r\n"
                    }
                }
                try await client.send(text)
                for index in 0..<100 {
                    let response = try await client.response(isHead: index % 3 == 2)
                    switch index % 3 {
                    case 0: #expect(response.body == fixture.manifest)
                    case 1:
                        #expect(response["content-range"] == "bytes \(index)-\(index)/1000")
                        #expect(response.body.readableBytesView.first == fixture.layer.readableBytesView[index])
                    default: #expect(response["content-length"] == "1000")
                    }
                }
            }
        }
    }

    /// A client that sends its requests, ends its side and then reads gets all the answers.
    @Test func halfClosedClientIsAnswered() async throws {
        let files = try big(8)
        try await withServer(store: files) { server, port in
            try await RawClient.with(port: port) { client async throws in
                try await client.send(get(files.blobPath) + get(files.blobPath) + get("/v2/"))
                client.endSending()
                for _ in 0..<2 {
                    let response = try await client.response()
                    #expect(Digest.hash(of: response.body.readableBytesView) == files.digest)
                }
                #expect(try await client.response().text == "{}")
                #expect(await client.remainder().readableBytes == 0)
            }
            try await eventually("the connection is counted out") { server.openConnections == 0 }
        }
    }

    @Test func slowHeadIsAnswered408() async throws {
        let fixture = try await Fixture()
        var limits = HTTPLimits()
        limits.headTimeout = .milliseconds(100)
        try await withServer(store: fixture.store, limits: limits) { _, port in
            try await RawClient.with(port: port) { client async throws in
                try await client.send("GET /v2/ HTTP/1.1\r\nHost:")
                let response = try await client.response()
                #expect(response.status == 408)
                #expect(await client.remainder().readableBytes == 0)
            }
        }
    }

    @Test func clientThatDoesNotReadIsReset() async throws {
        let files = try big()
        var limits = HTTPLimits()
        limits.progressTimeout = .seconds(1)
        let observer = RecordingObserver()
        try await withServer(store: files, limits: limits, observer: observer) { server, port in
            try await RawClient.with(port: port, receiveBuffer: 4096) { client async throws in
                try await client.send(get(files.blobPath))
                try await eventually("the slow client is cut off") { !observer.summaries.isEmpty }
                #expect(observer.summaries.first?.isComplete == false)
                #expect(await client.remainder().readableBytes < Int(files.size))
            }
            // A part that the sockets' buffers take, so that this one is not too slow as well.
            try await RawClient.with(port: port) { client async throws in
                let response = try await client.request(files.blobPath, fields: "Range: bytes=0-9999\r\n")
                #expect(response.status == 206)
                #expect(response.body.readableBytes == 10_000)
            }
        }
    }

    @Test func fileThatShrinksEndsTheTransfer() async throws {
        let files = try big()
        // No short limit beside it: the transfer ends because of the file, and however late the client shortens it.
        try await withServer(store: files) { server, port in
            try await RawClient.with(port: port, receiveBuffer: 4096) { client async throws in
                try await client.send(get(files.blobPath))
                let head = try await client.head()
                #expect(head.fields["content-length"] == "\(files.size)")
                let cut = 24 * 4096
                #expect(truncate(files.path, off_t(cut)) == 0)
                let rest = await client.remainder()
                #expect(rest.readableBytes < Int(files.size))
                // What did arrive is right up to the cut. Behind it the kernel may have zeroed what sendfile(2) had
                // queued already; the client cannot be spared that, but sees the transfer break off.
                let expected = FileStore.bytes(0..<rest.readableBytes)
                let isRight = zip(rest.readableBytesView, expected).enumerated().allSatisfy { place, pair in
                    pair.0 == pair.1 || place >= cut && pair.0 == 0
                }
                #expect(isRight)
            }
            // A file that is shorter than the store believes is not begun at all.
            try await RawClient.with(port: port) { client async throws in
                try await client.send(get(files.blobPath))
                #expect(await client.remainder().readableBytes < Int(files.size))
            }
            try await eventually("the connections are counted out") { server.openConnections == 0 }
        }
    }

    @Test func fileThatIsDeletedIsSentWhole() async throws {
        let files = try big(8)
        try await withServer(store: files) { _, port in
            try await RawClient.with(port: port, receiveBuffer: 4096) { client async throws in
                try await client.send(get(files.blobPath))
                let head = try await client.head()
                #expect(head.status == 200)
                unlink(files.path)
                let body = try await client.body(Int(files.size))
                #expect(Digest.hash(of: body.readableBytesView) == files.digest)
                #expect(try await client.request(files.blobPath).status == 404)
            }
        }
    }

    @Test func connectionsBeyondTheLimitAreAnswered503OrClosed() async throws {
        let fixture = try await Fixture()
        var limits = HTTPLimits()
        limits.connections = 2
        limits.refusedConnections = 1
        try await withServer(store: fixture.store, limits: limits) { server, port in
            try await RawClient.with(port: port) { first in
                #expect(try await first.request("/v2/").status == 200)
                try await RawClient.with(port: port) { second in
                    #expect(try await second.request("/v2/").status == 200)
                    try await RawClient.with(port: port) { third in
                        try await eventually("the third is accepted") { server.openConnections == 3 }
                        try await RawClient.with(port: port) { fourth in
                            #expect(await fourth.remainder().readableBytes == 0)
                        }
                        let response = try await third.request("/v2/")
                        #expect(response.status == 503)
                        #expect(response.text.contains("UNAVAILABLE"))
                        #expect(response["connection"] == "close")
                        #expect(await third.remainder().readableBytes == 0)
                    }
                    #expect(try await first.request("/v2/").status == 200)
                }
            }
            try await eventually("all are counted out") { server.openConnections == 0 }
            try await RawClient.with(port: port) { client async throws in
                #expect(try await client.request("/v2/").status == 200)
            }
        }
    }

    /// One client that opens all the connections it can leaves room for others.
    @Test func oneSourceLeavesRoomForOthers() async throws {
        let fixture = try await Fixture()
        var limits = HTTPLimits()
        limits.connections = 8
        limits.connectionsPerSource = 2
        limits.refusedConnections = 1
        try await withServer(store: fixture.store, limits: limits) { server, port in
            try await RawClient.with(port: port) { first in
                #expect(try await first.request("/v2/").status == 200)
                try await RawClient.with(port: port) { second in
                    #expect(try await second.request("/v2/").status == 200)
                    try await RawClient.with(port: port) { third async throws in
                        #expect(try await third.request("/livez").status == 503)
                    }
                    try await RawClient.with(port: port, from: "127.0.0.9") { other async throws in
                        #expect(try await other.request("/livez").status == 200)
                    }
                    #expect(try await first.request("/v2/").status == 200)
                }
            }
            try await eventually("all are counted out") { server.openConnections == 0 }
            try await RawClient.with(port: port) { client async throws in
                #expect(try await client.request("/v2/").status == 200)
            }
        }
    }

    @Test func gracefulShutdownLetsTransfersFinish() async throws {
        let files = try big(12)
        // On one event loop, so that when the idle connection has ended the busy one knows of the shutdown, too.
        let oneLoop: (inout RegistryServer.Configuration) -> Void = {
            $0.http.eventLoopGroup = nil
            $0.http.eventLoops = 1
        }
        try await withServer(store: files, configure: oneLoop) { server, port in
            try await RawClient.with(port: port) { idle in
                #expect(try await idle.request("/v2/").status == 200)
                try await RawClient.with(port: port, receiveBuffer: 4096) { busy in
                    try await busy.send(get(files.blobPath) + get("/v2/"))
                    #expect(try await busy.head().status == 200)
                    async let stopped: Void = server.shutdown(gracePeriod: .seconds(600))
                    // The idle connection is closed while the transfer runs.
                    #expect(await idle.remainder().readableBytes == 0)
                    await #expect(throws: (any Error).self) {
                        try await RawClient.with(port: port) { _ in }
                    }
                    let body = try await busy.body(Int(files.size))
                    #expect(Digest.hash(of: body.readableBytesView) == files.digest)
                    // No further request is taken.
                    #expect(await busy.remainder().readableBytes == 0)
                    await stopped
                }
            }
            #expect(server.openConnections == 0)
            #expect(server.addresses.isEmpty)
        }
    }

    @Test func shutdownAbortsTransfersAfterTheGracePeriod() async throws {
        let files = try big()
        try await withServer(store: files) { server, port in
            try await RawClient.with(port: port, receiveBuffer: 4096) { client async throws in
                try await client.send(get(files.blobPath))
                #expect(try await client.head().status == 200)
                await server.shutdown(gracePeriod: .milliseconds(50))
                #expect(server.openConnections == 0)
                #expect(await client.remainder().readableBytes < Int(files.size))
            }
        }
    }

    @Test func runEndsWithItsTask() async throws {
        let fixture = try await Fixture()
        let server = RegistryServer(
            configuration: .init(
                http: HTTPServerConfiguration(
                    listen: [ListenAddress(host: "127.0.0.1", port: 0)], eventLoops: 1)),
            store: fixture.store, logger: quiet)
        let running = Task { try await server.run() }
        try await eventually("the server listens") { !server.addresses.isEmpty }
        running.cancel()
        try await running.value
        #expect(server.addresses.isEmpty)
        await #expect(throws: (any Error).self) { try await server.start() }
    }

    // MARK: Listening

    @Test func listensOnSeveralAddressesAndFamilies() async throws {
        let fixture = try await Fixture()
        for listen in [
            [ListenAddress(host: nil, port: 0)], [ListenAddress(host: "localhost", port: 0)],
            [ListenAddress(host: "127.0.0.1", port: 0), ListenAddress(host: "127.0.0.2", port: 0)],
        ] {
            try await withServer(store: fixture.store, configure: { $0.http.listen = listen }) { server, port in
                #expect(!server.addresses.isEmpty)
                for address in server.addresses {
                    let ip = try #require(address.ipAddress)
                    // On all addresses, IPv4 clients come to the IPv6 socket.
                    let hosts = ip == "::" ? ["::1", "127.0.0.1"] : ip == "0.0.0.0" ? ["127.0.0.1"] : [ip]
                    for host in hosts {
                        try await RawClient.with(port: try #require(address.port), host: host) { client async throws in
                            #expect(try await client.request("/v2/").status == 200)
                        }
                    }
                }
                if listen.first?.host == "localhost" {
                    #expect(Set(server.addresses.map(\.port)).count == 1)
                }
            }
        }
    }

    @Test func takenPortIsNamed() async throws {
        let fixture = try await Fixture()
        try await withServer(store: fixture.store) { _, port in
            let error = await #expect(throws: ListenError.self) {
                try await withServer(
                    store: fixture.store,
                    configure: { $0.http.listen = [ListenAddress(host: "127.0.0.1", port: UInt16(port))] }
                ) { _, _ in }
            }
            #expect(error?.description.contains("127.0.0.1:\(port)") == true)
            #expect(error?.description.contains("another process") == true)
        }
    }

    // MARK: Descriptors

    /// Transfers that are finished, broken off and refused give every file back. Counted by the files' own names,
    /// because tests beside this one open files too.
    @Test func filesAreClosedAfterTransfers() async throws {
        let files = try big(8)
        try await withServer(store: files) { server, port in
            for round in 0..<24 {
                try await RawClient.with(port: port, receiveBuffer: 4096) { client async throws in
                    switch round % 4 {
                    case 0: #expect(try await client.request(files.blobPath).body.readableBytes == Int(files.size))
                    case 1:
                        try await client.send(get(files.blobPath))
                        _ = try await client.head()
                    case 2: try await client.send(get(files.blobPath) + get(files.blobPath))
                    default: #expect(try await client.request(files.blobPath, method: "HEAD").status == 200)
                    }
                }
            }
            try await eventually("all connections are counted out") { server.openConnections == 0 }
            let path = files.path
            try await eventually("no descriptor of the file is left") {
                let names = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
                return !names.contains { name in
                    (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)")) == path
                }
            }
        }
    }

    @Test func openFileLimitIsRaisedAndNeverLowered() {
        let now = OpenFileLimit.raise(to: 1)
        #expect(now > 1)
        #expect(OpenFileLimit.raise() >= now)
    }
}
