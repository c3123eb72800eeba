import ContentStore
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import OCIDistribution
import PeerRouting
import Testing

@testable import MirrorServer

@Suite struct MetricsPageTests {
    /// All metrics of a node, fetched from the port and checked by the Prometheus project's promtool.
    @Test(.timeLimit(.minutes(10))) func promtoolAcceptsThePage() async throws {
        let blob = SharedBytes(count: 2_000_000, seed: 80)
        let source = try await FaultyPeer.start()
        source.serve(blob)
        let network = InMemoryPeerNetwork()
        try await advertise(["\(blob.digest)"], of: peer(1, [source.address]), in: network)
        let node = try await Node.start(network: network, peerPort: source.port)
        _ = try await VerifyingClient.get(port: node.port, blobPath(blob.digest), expected: blob.buffer)
        _ = try await VerifyingClient.get(
            port: node.port, blobPath(Digest.hash(of: "none".utf8)), expected: ByteBuffer())
        ProcessMetrics.register(in: node.registry)
        let observer = HTTPMetrics(factory: node.registry)
        observer.requestBegan(handler: "blob")
        observer.requestEnded(
            RequestSummary(
                handler: "blob", method: .GET, target: "/", status: .ok, bodyBytes: 5, duration: .milliseconds(3),
                isComplete: true, remoteAddress: nil))
        var advertised = AdvertiserMetrics(factory: node.registry)
        var set = AdvertisedSet(filter: .all)
        set.apply(
            .contentAdded(
                .init(digest: blob.digest, size: 1, mediaType: .layer, sources: [.init(registry: "r", repository: "a")])
            ))
        advertised.update(set, advertised: ["\(blob.digest)"])
        let server = AdminServer(
            configuration: HTTPServerConfiguration(
                listen: [ListenAddress(host: "127.0.0.1", port: 0)],
                eventLoopGroup: MultiThreadedEventLoopGroup.singleton),
            routes: [.metrics(node.registry), .metadata(node.router)], logger: quiet)
        let port = try #require(try await server.start().first?.port)
        let page = try await VerifyingClient.text(port: port, "/metrics")
        for name in [
            "spegel_mirror_requests_total", "spegel_mirror_last_success_timestamp_seconds",
            "spegel_resolve_duration_seconds", "spegel_advertised_keys", "spegel_advertised_content_digests",
            "http_request_duration_seconds", "http_response_size_bytes", "http_requests_inflight",
            "process_resident_memory_bytes", "spegel_mirror_verifications_total",
        ] {
            #expect(page.contains("# TYPE \(name) "), "\(name)")
        }
        #expect(page.contains(#"spegel_mirror_requests_total{cache="hit",cache_type="hit",registry="docker.io"} 1"#))
        let metadata = try await VerifyingClient.text(port: port, "/debug/web/metadata")
        #expect(metadata == #"{"libp2p":{"id":"\#(node.router.localPeer.id)"}}"#)

        // Not on a thread that all tests' tasks share, as it blocks.
        let (status, complaints) = try await NIOThreadPool.singleton.runIfActive { () throws -> (Int32, String) in
            let promtool = Process()
            promtool.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            promtool.arguments = ["promtool", "check", "metrics"]
            let (input, output) = (Pipe(), Pipe())
            promtool.standardInput = input
            promtool.standardOutput = output
            promtool.standardError = output
            try promtool.run()
            try input.fileHandleForWriting.write(contentsOf: Data(page.utf8))
            try input.fileHandleForWriting.close()
            let complaints = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            promtool.waitUntilExit()
            return (promtool.terminationStatus, complaints)
        }
        #expect(status == 0, "\(complaints)")
        #expect(complaints.isEmpty)
        await server.shutdown(gracePeriod: .zero)
        await node.stop()
        await source.kill()
    }
}
