import ArgumentParser
import Foundation

/// Local content from the page cache: this project's server beside nginx, in alternating rounds in one run.
struct ServeBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Local blobs and manifests, beside nginx with sendfile."
    )

    @Option(help: "Rounds; the medians are printed.") var rounds = 5
    @Option(help: "MiB of the blob.") var blobMiB = 1024
    @Option(help: "Times the blob is fetched in a round.") var fetches = 4
    @Option(help: "Seconds of a run of small requests.") var seconds = 3
    @Option(help: "Event loops and nginx workers; as many as there are cores by default.") var workers: Int?
    @Option(parsing: .upToNextOption, help: "Connections of the runs of small requests.") var connections = [1, 16, 64]
    @Flag(help: "Only blobs.") var onlyBlobs = false
    @Flag(help: "Only small requests.") var onlyRequests = false

    private struct Sample {
        var rate: Double
        var cost: Double
    }

    func validate() throws {
        guard rounds > 0, blobMiB > 0, fetches > 0, seconds > 0, workers ?? 1 > 0, connections.allSatisfy({ $0 > 0 })
        else { throw ValidationError("all numbers must be greater than zero") }
    }

    func run() async throws {
        let workers = self.workers ?? ProcessInfo.processInfo.activeProcessorCount
        let layout = try ServedLayout(layerMiB: blobMiB)
        defer { layout.remove() }
        let servers: [any RivalServer] = [
            try OwnServer(layout: layout, eventLoops: workers), try NginxServer(layout: layout, workers: workers),
        ]
        defer { for server in servers { server.stop() } }
        print("machine: \(Machine.description)")
        print(
            "\(workers) event loops, \(workers) nginx workers (sendfile, tcp_nopush, open_file_cache), \(rounds) rounds,"
        )
        print("alternating, medians; client and servers share the cores; server CPU from /proc\n")
        if !onlyRequests { try measureBlobs(layout, servers) }
        if !onlyBlobs { try measureRequests(layout, servers) }
    }

    // MARK: Blobs

    private func measureBlobs(_ layout: ServedLayout, _ servers: [any RivalServer]) throws {
        let gib = Double(blobMiB * fetches) / 1024
        var samples = servers.map { _ in [Sample]() }
        // One unmeasured fetch brings the file into the page cache.
        for server in servers { _ = try fetch(server, layout, times: 1) }
        for round in 0..<rounds {
            for index in order(servers.count, round) {
                let before = ProcessUsage(of: servers[index].processes)
                let seconds = try fetch(servers[index], layout, times: fetches)
                let used = ProcessUsage(of: servers[index].processes).cpuSeconds - before.cpuSeconds
                samples[index].append(Sample(rate: gib / seconds, cost: used / gib))
            }
        }
        var table = Table(header: ["\(blobMiB) MiB blob, 1 connection", "GiB/s", "min-max", "CPU s/GiB"])
        for (server, samples) in zip(servers, samples) {
            let rates = samples.map(\.rate)
            table.rows.append([
                server.name, rates.median.text(2), "\((rates.min() ?? 0).text(2))-\((rates.max() ?? 0).text(2))",
                samples.map(\.cost).median.text(3),
            ])
        }
        table.rows.append(ratio(samples, places: 2, extra: 1))
        print(table.printed() + "\n")
    }

    /// - Returns: seconds it took.
    private func fetch(_ server: any RivalServer, _ layout: ServedLayout, times: Int) throws -> Double {
        let client = try ClientSocket(port: server.port)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1_048_576, alignment: 4096)
        defer { buffer.deallocate() }
        let path = server.blobPath(layout)
        let clock = ContinuousClock()
        let start = clock.now
        for _ in 0..<times {
            let length = try client.get(path, buffer: buffer)
            guard length == Int64(blobMiB) * 1_048_576 else {
                throw BenchmarkError("\(server.name) sent \(length) bytes")
            }
        }
        return (clock.now - start) / .seconds(1)
    }

    // MARK: Requests

    private func measureRequests(_ layout: ServedLayout, _ servers: [any RivalServer]) throws {
        let wrk = try Tool.find("wrk", package: "wrk")
        var table = Table(header: [
            "manifest, \(layout.manifestBytes) B", "connections", "requests/s", "min-max", "CPU us/request",
        ])
        for count in connections {
            var samples = servers.map { _ in [Sample]() }
            for server in servers { _ = try load(wrk, server, layout, connections: count, seconds: 1) }
            for round in 0..<rounds {
                for index in order(servers.count, round) {
                    let before = ProcessUsage(of: servers[index].processes)
                    let result = try load(wrk, servers[index], layout, connections: count, seconds: seconds)
                    let used = ProcessUsage(of: servers[index].processes).cpuSeconds - before.cpuSeconds
                    samples[index].append(Sample(rate: result.rate, cost: used * 1e6 / max(1, result.requests)))
                }
            }
            for (server, samples) in zip(servers, samples) {
                let rates = samples.map(\.rate)
                table.rows.append([
                    server.name, "\(count)", rates.median.text(0),
                    "\((rates.min() ?? 0).text(0))-\((rates.max() ?? 0).text(0))", samples.map(\.cost).median.text(1),
                ])
            }
            var ratio = ratio(samples, places: 2, extra: 1)
            ratio.insert("\(count)", at: 1)
            table.rows.append(ratio)
        }
        print(table.printed())
    }

    private func load(
        _ wrk: String, _ server: any RivalServer, _ layout: ServedLayout, connections: Int, seconds: Int
    ) throws -> (rate: Double, requests: Double) {
        let url = "http://127.0.0.1:\(server.port)\(server.manifestPath(layout))"
        let output = try Tool.run(wrk, ["-t", "1", "-c", "\(connections)", "-d", "\(seconds)s", url])
        let lines = output.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        guard
            let rate = lines.first(where: { $0.hasPrefix("Requests/sec:") })?.split(separator: " ").last.flatMap({
                Double($0)
            }),
            let requests = lines.first(where: { $0.contains(" requests in ") })?.split(separator: " ").first
                .flatMap({ Double($0) })
        else { throw BenchmarkError("wrk said \(output)") }
        guard !output.contains("Non-2xx"), !output.contains("Socket errors") else {
            throw BenchmarkError("\(server.name) failed requests: \(output)")
        }
        return (rate, requests)
    }

    // MARK: Rows

    /// Who goes first alternates, so that a drift of the machine favours nobody.
    private func order(_ count: Int, _ round: Int) -> [Int] {
        round % 2 == 0 ? Array(0..<count) : Array((0..<count).reversed())
    }

    /// The first server's figures divided by the second's, paired by round.
    private func ratio(_ samples: [[Sample]], places: Int, extra: Int) -> [String] {
        let rates = zip(samples[0], samples[1]).map { $0.rate / max($1.rate, .leastNonzeroMagnitude) }
        let costs = zip(samples[0], samples[1]).map { $0.cost / max($1.cost, .leastNonzeroMagnitude) }
        return ["ratio", rates.median.text(places)] + Array(repeating: "", count: extra) + [costs.median.text(places)]
    }
}
