import Foundation
import Metrics
import Testing

@testable import PrometheusMetrics

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
}
