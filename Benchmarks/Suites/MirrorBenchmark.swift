import Foundation
import PeerRouting

/// Content through a peer: verified and not, beside a relay that only moves bytes, caches that hold it already, and the
/// program of `--against`.
struct MirrorBenchmark {
    private let context: BenchmarkContext
    private let lab: Lab

    init(_ context: BenchmarkContext, _ lab: Lab) {
        self.context = context
        self.lab = lab
    }

    private static let relay = "plain relay"
    private static let verified = "spegel, engine alone"
    private static let unwatched = "nobody looks"
    private static let watched = "watched"
    private static let unverified = "spegel, not verified"

    func measure(_ report: inout SuiteReport) async throws {
        let images = try lab.images()
        let source = try OwnServer(images, eventLoops: context.workers)
        defer { source.stop() }
        func process(_ name: String, _ arguments: [String]) throws -> MirrorProcess {
            try MirrorProcess(name, peerPort: source.port, eventLoops: context.workers, arguments: arguments)
        }
        let own: [any BenchmarkServer] = [
            try process(Self.verified, []), try process(Self.unverified, ["--unverified"]),
            try process(Self.relay, ["--relay"]),
        ]
        defer { for server in own { server.stop() } }
        let pairs = try await lab.pairs()
        let servers: [any BenchmarkServer] = pairs.prefix(1).map(\.remote) + own + pairs.dropFirst().map(\.remote)
        report.notes.append(
            "client, mirror and source share the cores; CPU is the mirror's alone; spegel and the other program are daemons whose peer "
                + "has a containerd with the content, the others have a server over the same files as their only peer")

        var blobs = Section(
            title: "\(context.blobSize) blob through a peer, one connection", unit: "GiB/s", cpuUnit: "s/GiB",
            baseline: Self.relay)
        for server in servers { _ = try Load.fetch(server, images.layer) }
        let fetches = try await context.interleaved(servers) { try Load.fetch($0, images.layer) }
        blobs.measurements = zip(servers, fetches).map { $1.measurement($0.name) }
        report.sections.append(blobs)
        let manifests = try await requests(
            "manifest through a peer, \(images.manifest.bytes) B", servers, [images.manifest])
        let small = try await requests(
            "blobs of \(BenchmarkImages.small.bytes) B through a peer", servers, images.smallLayers)
        report.sections += [manifests, small]
        try await measureCaches(images, source, &report)
        if let pair = pairs.first { try await measureWatched(pair, images, &report) }
        let misses = try measureMisses(pairs)
        if !misses.measurements.isEmpty { report.sections.append(misses) }
        judge(blobs, manifests, small, misses, daemon: servers[0].name, &report)
    }

    private func requests(
        _ title: String, _ servers: [any BenchmarkServer], _ contents: [BenchmarkImages.Content]
    ) async throws -> Section {
        var section = Section(title: title, unit: "requests/s", cpuUnit: "us/request", baseline: Self.relay)
        for connections in context.connections {
            for server in servers { _ = try Load.requests(server, contents, connections: connections, seconds: 1) }
            let samples = try await context.interleaved(servers) {
                try Load.requests($0, contents, connections: connections, seconds: context.seconds)
            }
            section.measurements += zip(servers, samples).map { server, samples in
                samples.measurement(server.name, group: "\(connections) conn.", withFailures: true)
            }
        }
        return section
    }

    /// What else is put before a registry. Their first answer comes from the upstream, all others from a copy of their own,
    /// which is a different thing from a peer's; so they have a table of their own.
    private func measureCaches(
        _ images: BenchmarkImages, _ source: OwnServer, _ report: inout SuiteReport
    ) async throws {
        let nginx = try NginxServer(images, workers: context.workers, upstream: source.port)
        defer { nginx.stop() }
        let registry = try DockerRegistry(pullThroughOf: source.port)
        defer { registry.stop() }
        let servers: [any BenchmarkServer] = [nginx, registry]
        var section = Section(title: "\(context.blobSize) blob through a cache", unit: "GiB/s", cpuUnit: "s/GiB")
        for server in servers {
            let first = try Load.fetch(server, images.layer)
            section.measurements.append([first].measurement(server.name, group: "first"))
        }
        let samples = try await context.interleaved(servers) { try Load.fetch($0, images.layer) }
        section.measurements += zip(servers, samples).map { $1.measurement($0.name, group: "from its copy") }
        report.sections.append(section)
    }

    /// What it costs that people and a Prometheus look on.
    private func measureWatched(
        _ pair: DaemonPair, _ images: BenchmarkImages, _ report: inout SuiteReport
    ) async throws {
        let browsers = 10
        var section = Section(
            title:
                "blobs of \(BenchmarkImages.small.bytes) B through a peer, 16 connections, with the debug page open in \(browsers) browsers",
            unit: "requests/s", cpuUnit: "us/request", baseline: Self.unwatched)
        var answers = 0
        let samples = try await context.interleaved([false, true]) { isWatched in
            let watchers = isWatched ? try Watchers(host: pair.remote.host, browsers: browsers) : nil
            defer { answers += watchers?.stop() ?? 0 }
            return try Load.requests(
                pair.remote, images.smallLayers, connections: 16, seconds: context.quick ? 2 : 10)
        }
        section.measurements = zip([Self.unwatched, Self.watched], samples).map {
            $1.measurement($0, withFailures: true)
        }
        report.sections.append(section)
        report.notes.append("pages and scrapes answered while ten browsers and a Prometheus looked on: \(answers)")
        guard answers > 0, let ratio = section.measurements.last.flatMap(section.ratio) else {
            throw BenchmarkError("the debug page of \(pair.remote.host) does not answer")
        }
        report.budgets.append(
            Budget(
                "page in \(browsers) browsers, a scrape each second", ">= 0.98 x without",
                measured: "\(ratio.text(3)) x",
                met: ratio >= 0.98))
    }

    /// One request after the other for content that no node has.
    private func measureMisses(_ pairs: [DaemonPair]) throws -> Section {
        var section = Section(title: "miss, no peer has it", unit: "ms (median)", higherIsBetter: false)
        let count = context.quick ? 300 : 2000
        for pair in pairs {
            let client = try ClientSocket(host: pair.remote.host, port: pair.remote.port)
            var random = SplitMix64(seed: context.seed)
            var latencies = Latencies()
            var wrong = 0
            for _ in 0..<count {
                let hex = (0..<4).map { _ in
                    let digits = String(random.next(), radix: 16)
                    return String(repeating: "0", count: 16 - digits.count) + digits
                }.joined()
                let start = ContinuousClock.now
                let path = "/v2/\(BenchmarkImages.repository)/blobs/sha256:\(hex)?ns=docker.io"
                if try client.status(path) != 404 { wrong += 1 }
                latencies.record(start.duration(to: .now))
            }
            var row = Measurement(name: pair.name, figure: Summary([latencies.milliseconds(50)]))
            row.values = latencies.values + [.init(name: "not 404", value: Double(wrong), unit: "")]
            section.measurements.append(row)
        }
        return section
    }

    private func judge(
        _ blobs: Section, _ manifests: Section, _ small: Section, _ misses: Section, daemon: String,
        _ report: inout SuiteReport
    ) {
        let failures =
            (manifests.measurements + small.measurements).filter { $0.name == daemon }.flatMap(\.values)
            .map(\.value).max() ?? 0
        report.budgets.append(
            Budget(
                "requests through a peer", "no false 404 at any load", measured: "\(failures.text(1)) %",
                met: failures == 0, always: true))
        if let miss = misses.measurements.first(where: { $0.name == "spegel" }),
            let p99 = miss.values.first(where: { $0.name == "p99" })?.value
        {
            report.budgets.append(Budget("miss, p99", "< 20 ms", measured: "\(p99.text(1)) ms", met: p99 < 20))
        } else {
            report.budgets.append(Budget("miss, p99", "< 20 ms", measured: "needs root", met: nil))
        }
        let most = "\(context.connections.max() ?? 1) conn."
        guard let other = context.against, let verified = blobs.pair(daemon, other.name),
            let unverified = blobs.pair(Self.unverified, other.name),
            let manifest = manifests.pair(daemon, other.name, group: most),
            let small = small.pair(daemon, other.name, group: most)
        else {
            report.budgets.append(
                Budget(
                    "blob, manifest through a peer", ">= 1.3 x, >= 5 x the Go original", measured: "needs --against",
                    met: nil))
            return
        }
        func add(_ subject: String, _ factor: Double, _ pair: (Measurement, Measurement)) {
            report.budgets.append(other.budget(subject, factor, ratio: pair.0.figure.ratio(to: pair.1.figure)))
        }
        add("blob through a peer, verified", 1.3, verified)
        // Another build of ours verifies too, so that this says nothing of it.
        if other.name == "against" { add("the same, not verified", 2, unverified) }
        add("manifest through a peer, \(most)", 5, manifest)
        if other.name == "old" { add("4 KiB blobs through a peer, \(most)", 1, small) }
    }
}
