import Foundation
import Metrics
import Testing

@testable import PrometheusMetrics

@Suite struct ExpositionTests {
    @Test func openMetricsIsExact() {
        let registry = PrometheusRegistry()
        registry.describe("b_total", help: #"A "quoted" text."#)
        Counter(label: "b_total", dimensions: [("a", "q\"")], factory: registry).increment(by: 3)
        Gauge(label: "a_gauge", factory: registry).record(1.5)
        registry.describe("c_seconds", help: "Times.", buckets: [0.1, 1])
        Metrics.Timer(label: "c_seconds", factory: registry).recordNanoseconds(500_000_000)
        #expect(
            String(decoding: registry.text(.openMetrics), as: UTF8.self) == #"""
                # HELP a_gauge a gauge.
                # TYPE a_gauge gauge
                a_gauge 1.5
                # HELP b A \"quoted\" text.
                # TYPE b counter
                b_total{a="q\""} 3
                # HELP c_seconds Times.
                # TYPE c_seconds histogram
                c_seconds_bucket{le="0.1"} 0
                c_seconds_bucket{le="1.0"} 1
                c_seconds_bucket{le="+Inf"} 1
                c_seconds_sum 0.5
                c_seconds_count 1
                # EOF

                """#)
    }

    @Test(
        arguments: [
            ([], false), (["*/*"], false), (["text/plain"], false),
            (["application/openmetrics-text"], true),
            (["application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"], true),
            // What Prometheus 2.42 sends.
            (
                [
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
                        + "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
                ], true
            ),
            (["application/openmetrics-text; version=\"1.0.0\"; charset=utf-8"], true),
            (["application/openmetrics-text;version=2.0.0, text/plain"], false),
            (["application/openmetrics-text;q=0.1", "text/plain"], false),
            (["application/openmetrics-text;q=0"], false), (["application/openmetrics-text;q=x"], false),
            ([";;;,,,=;q=,"], false),
        ] as [([String], Bool)])
    func theFormatFollowsAccept(_ accept: [String], isOpenMetrics: Bool) {
        #expect((ContentNegotiation.metricsFormat(accept) == .openMetrics) == isOpenMetrics)
    }

    @Test(
        arguments: [
            ([], false), (["identity"], false), (["gzip"], true), (["GZip;q=0.5"], true), (["gzip;q=0"], false),
            (["deflate, gzip"], true), (["*"], true), (["*;q=0"], false), (["gzip;q=0, *"], false), (["br"], false),
        ] as [([String], Bool)])
    func theEncodingFollowsAcceptEncoding(_ values: [String], isGzip: Bool) {
        #expect(ContentNegotiation.acceptsGzip(values) == isGzip)
    }

    @Test(arguments: [0, 1, 1000, 300_000]) func gzipIsReadByGunzip(_ count: Int) throws {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 3) }
        let compressed = try #require(Gzip.compress(bytes))
        let path = NSTemporaryDirectory() + "metrics-\(UUID().uuidString).gz"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data(compressed).write(to: URL(fileURLWithPath: path))
        let gunzip = Process()
        gunzip.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        gunzip.arguments = ["gzip", "-dc", path]
        let output = Pipe()
        gunzip.standardOutput = output
        try gunzip.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        gunzip.waitUntilExit()
        #expect(gunzip.terminationStatus == 0)
        #expect(Array(data) == bytes)
    }

    @Test func collectorsRunBeforeAPage() async {
        let registry = PrometheusRegistry()
        let gauge = Gauge(label: "collected", factory: registry)
        registry.addCollector { gauge.record(7) }
        #expect(String(decoding: registry.text(), as: UTF8.self).contains("collected 0"))
        await registry.collect()
        #expect(String(decoding: registry.text(), as: UTF8.self).contains("collected 7"))
    }
}
