import ContentStore
import Foundation
import Logging
import Metrics
import NIOCore
import NIOHTTP1
import NIOPosix
import OCIDistribution
import PeerRouting
import Testing

@testable import MirrorServer

@Suite struct PrometheusTests {
    private func text(_ registry: PrometheusRegistry) -> String { String(decoding: registry.text(), as: UTF8.self) }

    @Test func theFormatIsExact() {
        let registry = PrometheusRegistry()
        registry.describe("b_total", help: #"Back\slash"# + "\nand line feed.")
        Counter(label: "b_total", dimensions: [("z", "1"), ("a", "q\"\\\n")], factory: registry).increment(by: 3)
        Gauge(label: "a_gauge", factory: registry).record(1.5)
        registry.describe("c_seconds", help: "Times.", buckets: [0.1, 1])
        let timer = Metrics.Timer(label: "c_seconds", factory: registry)
        for seconds in [0.05, 0.1, 0.5, 3] { timer.recordNanoseconds(Int64(seconds * 1_000_000_000)) }
        #expect(
            text(registry) == #"""
                # HELP a_gauge a gauge.
                # TYPE a_gauge gauge
                a_gauge 1.5
                # HELP b_total Back\\slash\nand line feed.
                # TYPE b_total counter
                b_total{a="q\"\\\n",z="1"} 3
                # HELP c_seconds Times.
                # TYPE c_seconds histogram
                c_seconds_bucket{le="0.1"} 2
                c_seconds_bucket{le="1"} 3
                c_seconds_bucket{le="+Inf"} 4
                c_seconds_sum 3.65
                c_seconds_count 4

                """#)
    }

    @Test func namesAreMadeValid() {
        let registry = PrometheusRegistry()
        Counter(label: "my.counter-1", dimensions: [("1 a", "x"), ("__b", "y")], factory: registry).increment()
        #expect(text(registry).contains(#"my_counter_1_total{_1_a="x",x__b="y"} 1"#))
        Meter(label: "", factory: registry).set(1)
        #expect(text(registry).contains("\n_ 1\n"))
        Metrics.Timer(label: "wait", factory: registry).recordNanoseconds(1)
        #expect(text(registry).contains("wait_seconds_count 1"))
    }

    @Test func theSameMetricMadeTwiceIsOne() {
        let registry = PrometheusRegistry()
        Counter(label: "x_total", dimensions: [("a", "1"), ("b", "2")], factory: registry).increment()
        Counter(label: "x_total", dimensions: [("b", "2"), ("a", "1")], factory: registry).increment()
        #expect(text(registry).contains(#"x_total{a="1",b="2"} 2"#))
        // Of another kind: not shown, and no harm done.
        Meter(label: "x_total", factory: registry).set(9)
        #expect(!text(registry).contains(" 9"))
    }

    @Test func labelsAreBounded() {
        let registry = PrometheusRegistry()
        for number in 0..<(PrometheusRegistry.seriesLimit * 2) {
            Counter(label: "many_total", dimensions: [("n", "\(number)")], factory: registry).increment()
        }
        let lines = text(registry).split(separator: "\n").filter { $0.hasPrefix("many_total{") }
        #expect(lines.count == PrometheusRegistry.seriesLimit)
        let total = lines.compactMap { $0.split(separator: " ").last }.compactMap { Int($0) }.reduce(0, +)
        #expect(total == PrometheusRegistry.seriesLimit * 2)
        #expect(lines.contains { $0.hasPrefix(#"many_total{n="other"}"#) })
    }

    @Test func numbers() {
        #expect(PrometheusText.number(1) == "1")
        #expect(PrometheusText.number(-0.25) == "-0.25")
        #expect(PrometheusText.number(.nan) == "NaN")
        #expect(PrometheusText.number(.infinity) == "+Inf")
        #expect(PrometheusText.number(1_700_000_000.5) == "1700000000.5")
        #expect(PrometheusText.number(1e300) == "1e+300")
    }

    @Test func metersCountersAndRecordersBehave() {
        let registry = PrometheusRegistry()
        let meter = Meter(label: "m", factory: registry)
        meter.increment()
        meter.increment(by: 2.5)
        meter.decrement()
        #expect(text(registry).contains("\nm 2.5\n"))
        let counter = FloatingPointCounter(label: "f", factory: registry)
        counter.increment(by: 0.5)
        #expect(text(registry).contains("f_total 0.5"))
        let recorder = Recorder(label: "size_bytes", dimensions: [], aggregate: true, factory: registry)
        recorder.record(300)
        #expect(text(registry).contains(#"size_bytes_bucket{le="256"} 0"#))
        #expect(text(registry).contains(#"size_bytes_bucket{le="1024"} 1"#))
    }

    @Test func theProcessIsDescribed() {
        let registry = PrometheusRegistry()
        ProcessMetrics.register(in: registry)
        func value(_ name: String) -> Double {
            text(registry).split(separator: "\n").first { $0.hasPrefix(name + " ") }
                .flatMap { Double($0.split(separator: " ")[1]) } ?? -1
        }
        #expect(value("process_resident_memory_bytes") > 1_000_000)
        #expect(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"))
        #expect(value("process_cpu_seconds_total") > 0)
        #expect(value("process_open_fds") > 2)
        #expect(value("process_max_fds") >= value("process_open_fds"))
        #expect(value("process_threads") >= 1)
        let age = Date().timeIntervalSince1970 - value("process_start_time_seconds")
        #expect(age > -2 && age < 100_000)
    }

    /// Everything the program exposes, seen through the port, and through the checker of the Prometheus project.
    @Test(.timeLimit(.minutes(10))) func promtoolFindsNothingToComplainAbout() async throws {
        let blob = SharedBytes(count: 2_000_000, seed: 80)
        let source = try await FaultyPeer.start()
        source.serve(blob)
        let network = InMemoryPeerNetwork()
        try await advertise(["\(blob.digest)"], of: peer(1, [source.address]), in: network)
        let node = try await Node.start(network: network, peerPort: source.port)
        _ = try await CheckingClient.get(port: node.port, blobPath(blob.digest), expected: blob.buffer)
        _ = try await CheckingClient.get(
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
        let server = AuxiliaryServer(
            configuration: HTTPServerConfiguration(
                listen: [ListenAddress(host: "127.0.0.1", port: 0)],
                eventLoopGroup: MultiThreadedEventLoopGroup.singleton),
            routes: [.metrics(node.registry), .metadata(node.router)], logger: quiet)
        let port = try #require(try await server.start().first?.port)
        let page = try await CheckingClient.text(port: port, "/metrics")
        for name in [
            "spegel_mirror_requests_total", "spegel_mirror_last_success_timestamp_seconds",
            "spegel_resolve_duration_seconds", "spegel_advertised_keys", "spegel_advertised_content_digests",
            "http_request_duration_seconds", "http_response_size_bytes", "http_requests_inflight",
            "process_resident_memory_bytes", "spegel_mirror_verifications_total",
        ] {
            #expect(page.contains("# TYPE \(name) "), "\(name)")
        }
        #expect(page.contains(#"spegel_mirror_requests_total{cache="hit",cache_type="hit",registry="docker.io"} 1"#))
        let metadata = try await CheckingClient.text(port: port, "/debug/web/metadata")
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
        await server.stop(gracePeriod: .zero)
        await node.stop()
        await source.kill()
    }
}
