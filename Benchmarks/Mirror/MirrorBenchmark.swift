import ArgumentParser
import Foundation
import OCIDistribution

/// Content through a peer: verified and not, beside a relay that only moves bytes; in alternating rounds in one run.
struct MirrorBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mirror",
        abstract: "Blobs and manifests through a peer, verified and not, beside a plain relay."
    )

    @Option(help: "Rounds; the medians are printed.") var rounds = 3
    @Option(help: "MiB of the blob.") var blobMiB = 1024
    @Option(help: "Seconds of a run of small requests.") var seconds = 3
    @Option(help: "Event loops of each node; as many as there are cores by default.") var workers: Int?
    @Option(parsing: .upToNextOption, help: "Connections of the runs of small requests.") var connections = [1, 16, 64]
    @Option(help: "The Go original's program, measured beside ours as two nodes with containerd; needs root.")
    var goSpegel: String?

    private struct Sample {
        var rate: Double
        var cost: Double
        var failures = 0.0
    }

    func validate() throws {
        guard rounds > 0, blobMiB > 0, seconds > 0, workers ?? 1 > 0, connections.allSatisfy({ $0 > 0 }) else {
            throw ValidationError("all numbers must be greater than zero")
        }
    }

    func run() async throws {
        if goSpegel != nil { try BenchmarkNamespace.enter() }
        let workers = self.workers ?? ProcessInfo.processInfo.activeProcessorCount
        let layout = try ServedLayout(layerMiB: blobMiB)
        defer { layout.remove() }
        let source = try OwnServer(layout: layout, eventLoops: workers)
        defer { source.stop() }
        var nodes: [any RivalServer] = [
            try MirrorNode("verified", peerPort: source.port, eventLoops: workers, arguments: []),
            try MirrorNode("not verified", peerPort: source.port, eventLoops: workers, arguments: ["--unverified"]),
            try MirrorNode("plain relay", peerPort: source.port, eventLoops: workers, arguments: ["--relay"]),
        ]
        defer { for node in nodes { node.stop() } }
        if let goSpegel { nodes.append(try await GoSpegel.start(goSpegel, layout: layout)) }
        print("machine: \(Machine.description)")
        print("\(workers) event loops for each node; \(rounds) rounds, alternating, medians; client, mirror and source")
        print("share the cores; CPU is that of the mirror alone\n")
        try measureBlobs(layout, nodes)
        try measureRequests("manifest through a peer, \(layout.manifestBytes) B", nodes) { [$0.manifestPath(layout)] }
        try measureRequests("blobs through a peer, \(ServedLayout.smallBytes) B", nodes) { _ in layout.smallPaths }
    }

    private func measureBlobs(_ layout: ServedLayout, _ nodes: [any RivalServer]) throws {
        let gib = Double(blobMiB) / 1024
        var samples = nodes.map { _ in [Sample]() }
        for node in nodes { _ = try fetch(node, layout) }
        for round in 0..<rounds {
            for index in order(nodes.count, round) {
                let before = ProcessUsage(of: nodes[index].processes)
                let seconds = try fetch(nodes[index], layout)
                let used = ProcessUsage(of: nodes[index].processes).cpuSeconds - before.cpuSeconds
                samples[index].append(Sample(rate: gib / seconds, cost: used / gib))
            }
        }
        var table = Table(header: [
            "\(blobMiB) MiB blob through a peer", "GiB/s", "min-max", "CPU s/GiB", "of the relay", "RSS MiB",
        ])
        let bound = samples[2].map(\.rate).median
        for (node, samples) in zip(nodes, samples) {
            let rates = samples.map(\.rate)
            table.rows.append([
                node.name, rates.median.text(2), "\((rates.min() ?? 0).text(2))-\((rates.max() ?? 0).text(2))",
                samples.map(\.cost).median.text(3), (rates.median / max(bound, .leastNonzeroMagnitude)).text(2),
                ProcessUsage(of: node.processes).residentMiB.text(1),
            ])
        }
        print(table.printed() + "\n")
    }

    private func fetch(_ node: any RivalServer, _ layout: ServedLayout) throws -> Double {
        let client = try ClientSocket(host: node.host, port: node.port)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1_048_576, alignment: 4096)
        defer { buffer.deallocate() }
        let clock = ContinuousClock()
        let start = clock.now
        let length = try client.get(node.blobPath(layout), buffer: buffer)
        guard length == Int64(blobMiB) * 1_048_576 else { throw BenchmarkError("\(node.name) sent \(length) bytes") }
        return (clock.now - start) / .seconds(1)
    }

    private func measureRequests(
        _ title: String, _ nodes: [any RivalServer], _ paths: (any RivalServer) -> [String]
    ) throws {
        let wrk = try Tool.find("wrk", package: "wrk")
        var table = Table(header: [title, "connections", "requests/s", "min-max", "CPU us/request", "not 200"])
        for count in connections {
            var samples = nodes.map { _ in [Sample]() }
            for node in nodes { _ = try load(wrk, node, paths(node), connections: count, seconds: 1) }
            for round in 0..<rounds {
                for index in order(nodes.count, round) {
                    let before = ProcessUsage(of: nodes[index].processes)
                    let result = try load(wrk, nodes[index], paths(nodes[index]), connections: count, seconds: seconds)
                    let used = ProcessUsage(of: nodes[index].processes).cpuSeconds - before.cpuSeconds
                    samples[index].append(
                        Sample(
                            rate: result.rate, cost: used * 1e6 / max(1, result.requests),
                            failures: result.failures / max(1, result.requests)))
                }
            }
            for (node, samples) in zip(nodes, samples) {
                let rates = samples.map(\.rate)
                table.rows.append([
                    node.name, "\(count)", rates.median.text(0),
                    "\((rates.min() ?? 0).text(0))-\((rates.max() ?? 0).text(0))", samples.map(\.cost).median.text(1),
                    "\((samples.map(\.failures).median * 100).text(1)) %",
                ])
            }
        }
        print(table.printed() + "\n")
    }

    /// Asks for one path after the other, beginning anew after the last.
    private func load(
        _ wrk: String, _ node: any RivalServer, _ paths: [String], connections: Int, seconds: Int
    ) throws -> (rate: Double, requests: Double, failures: Double) {
        var arguments = ["-t", "1", "-c", "\(connections)", "-d", "\(seconds)s"]
        let script = NSTemporaryDirectory() + "spegel-benchmark-\(UUID().uuidString).lua"
        defer { try? FileManager.default.removeItem(atPath: script) }
        if paths.count > 1 {
            let list = paths.map { "\"\($0)\"" }.joined(separator: ",")
            let text =
                "local paths = {\(list)}\nlocal i = 0\n"
                + "request = function() i = i % #paths + 1; return wrk.format(nil, paths[i]) end\n"
            try text.write(toFile: script, atomically: true, encoding: .utf8)
            arguments += ["-s", script]
        }
        let output = try Tool.run(wrk, arguments + ["http://\(node.host):\(node.port)\(paths[0])"])
        let lines = output.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        guard
            let rate = lines.first(where: { $0.hasPrefix("Requests/sec:") })?.split(separator: " ").last
                .flatMap({ Double($0) }),
            let requests = lines.first(where: { $0.contains(" requests in ") })?.split(separator: " ").first
                .flatMap({ Double($0) })
        else { throw BenchmarkError("wrk said \(output)") }
        let failures =
            lines.first { $0.hasPrefix("Non-2xx") }?.split(separator: " ").last.flatMap { Double($0) } ?? 0
        return (rate, requests, failures)
    }

    /// Who goes first alternates, so that a drift of the machine favours nobody.
    private func order(_ count: Int, _ round: Int) -> [Int] {
        round % 2 == 0 ? Array(0..<count) : Array((0..<count).reversed())
    }
}
