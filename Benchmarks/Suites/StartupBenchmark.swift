import ContainerdTestKit
import Foundation
import TestSupport

/// From the start of the second daemon of a cluster of two until it answers: the registry port at all, `/readyz`, and
/// content of the first node. The program of `--against` does the same on the same containerds.
struct StartupBenchmark {
    private let context: BenchmarkContext
    private let lab: Lab

    init(_ context: BenchmarkContext, _ lab: Lab) {
        self.context = context
        self.lab = lab
    }

    /// Seconds; nil for what did not come to pass.
    private struct Times {
        var listening: Double?
        var ready: Double?
        var content: Double?
        var residentMiB = 0.0
    }

    func measure(_ report: inout SuiteReport) async throws {
        let images = try lab.images()
        let pairs = try await lab.pairs()
        report.notes.append("the first node runs already; the second is started anew in each round")
        let samples = try await context.interleaved(pairs) { pair in try await start(pair, images) }
        var section = Section(title: "second node of two, from its start", unit: "s until ready", higherIsBetter: false)
        for (pair, samples) in zip(pairs, samples) {
            var row = Measurement(name: pair.name, figure: Summary(samples.compactMap(\.ready)))
            row.values = [
                .init(name: "listening", value: samples.compactMap(\.listening).median, unit: "s", places: 2),
                .init(
                    name: "first manifest through the peer", value: samples.compactMap(\.content).median, unit: "s",
                    places: 2),
                .init(name: "resident after it", value: samples.map(\.residentMiB).median, unit: "MiB", places: 1),
            ]
            section.measurements.append(row)
        }
        report.sections.append(section)
        if let ours = section.measurements.first {
            let worst = ours.figure.max
            report.budgets.append(
                Budget(
                    "ready after start, cluster of two", "<= 1 s", measured: "\(worst.text(2)) s (slowest)",
                    met: worst <= 1))
        }
    }

    private func start(_ pair: DaemonPair, _ images: BenchmarkImages) async throws -> Times {
        try await pair.stopNode(1)
        let clock = ContinuousClock()
        let start = clock.now
        let node = try await pair.startNode(1)
        var times = Times()
        // A program without /readyz is ready when it serves what its peer has.
        while times.content == nil || times.ready == nil {
            let seconds = (clock.now - start) / .seconds(1)
            guard seconds < 60, node.program.isRunning else {
                throw BenchmarkError("\(pair.name) is not ready after 60 s\n\(node.program.errors.suffix(2000))")
            }
            if let client = try? ClientSocket(host: node.host, port: node.port, timeoutSeconds: 5) {
                if times.listening == nil { times.listening = seconds }
                if times.ready == nil, (try? client.status("/readyz")) == 200 { times.ready = seconds }
            }
            // Not before it is ready: that it knew no peer then may be remembered for a while.
            if times.content == nil, times.ready != nil || seconds > 5,
                let client = try? ClientSocket(host: node.host, port: node.port, timeoutSeconds: 5),
                (try? client.status(node.path(images.manifest))) == 200
            {
                times.content = (clock.now - start) / .seconds(1)
            }
            if let content = times.content, times.ready == nil, content + 5 < seconds { times.ready = content }
            try await Task.sleep(for: .milliseconds(2))
        }
        times.residentMiB = ProcessUsage(of: node.processes).residentMiB
        return times
    }
}
