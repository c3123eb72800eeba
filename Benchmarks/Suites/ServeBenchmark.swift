import Foundation

/// Local content from the page cache: the daemon over containerd, and the server over an OCI layout, beside nginx and the
/// program of `--against`.
struct ServeBenchmark {
    private let context: BenchmarkContext
    private let lab: Lab

    init(_ context: BenchmarkContext, _ lab: Lab) {
        self.context = context
        self.lab = lab
    }

    func measure(_ report: inout SuiteReport) async throws {
        let images = try lab.images()
        let own = try OwnServer(images, eventLoops: context.workers)
        defer { own.stop() }
        let nginx = try NginxServer(images, workers: context.workers)
        defer { nginx.stop() }
        let pairs = try await lab.pairs()
        let servers: [any BenchmarkServer] =
            pairs.prefix(1).map(\.local) + [own, nginx] + pairs.dropFirst().map(\.local)
        report.notes.append(
            "nginx: \(context.workers) workers, sendfile, tcp_nopush, open_file_cache; content in the page cache; client "
                + "and servers share the cores; CPU is the server's")
        if pairs.isEmpty { report.notes.append("not root: the server over an OCI layout stands for the daemon") }

        var blobs = Section(
            title: "\(context.blobSize) blob, one connection", unit: "GiB/s", cpuUnit: "s/GiB", baseline: nginx.name)
        let times = max(1, (1 << 30) / context.blobSize.bytes)
        // One fetch that is not measured brings the file into the page cache.
        for server in servers { _ = try Load.fetch(server, images.layer) }
        let fetches = try await context.interleaved(servers) { try Load.fetch($0, images.layer, times: times) }
        blobs.measurements = zip(servers, fetches).map { $1.measurement($0.name) }
        report.sections.append(blobs)

        let manifests = try await requests("manifest, \(images.manifest.bytes) B", servers, [images.manifest])
        report.sections.append(manifests)
        report.sections.append(
            try await requests("blobs of \(BenchmarkImages.small.bytes) B", servers, images.smallLayers))
        judge(blobs, manifests, daemon: servers[0].name, nginx: nginx.name, &report)
    }

    private func requests(
        _ title: String, _ servers: [any BenchmarkServer], _ contents: [BenchmarkImages.Content]
    ) async throws -> Section {
        var section = Section(title: title, unit: "requests/s", cpuUnit: "us/request", baseline: "nginx")
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

    private func judge(
        _ blobs: Section, _ manifests: Section, daemon: String, nginx: String, _ report: inout SuiteReport
    ) {
        func blob(_ name: String) -> Measurement? { blobs.measurements.first { $0.name == name } }
        guard let ours = blob(daemon), let rival = blob(nginx) else { return }
        let ratio = ours.figure.ratio(to: rival.figure)
        report.budgets.append(
            Budget("local blob", ">= 1.0 x nginx sendfile", measured: "\(ratio.text(2)) x", met: ratio >= 1))
        let failures = manifests.measurements.filter { $0.name == daemon }.flatMap(\.values).map(\.value).max() ?? 0
        report.budgets.append(
            Budget(
                "local requests", "no local request fails", measured: "\(failures.text(1)) %", met: failures == 0,
                always: true))
        guard let other = context.against, let against = blob(other.name), let cpu = ours.cpu,
            let otherCPU = against.cpu
        else {
            report.budgets.append(
                Budget("local blob, manifest", ">= 1 x, >= 5 x the Go original", measured: "needs --against", met: nil))
            return
        }
        report.budgets.append(other.budget("local blob", 1, ratio: ours.figure.ratio(to: against.figure)))
        // Turned round, so that more is better here too.
        report.budgets.append(other.budget("local blob, GiB for each CPU second", 1, ratio: otherCPU.ratio(to: cpu)))
        let most = "\(context.connections.max() ?? 1) conn."
        if let (a, b) = manifests.pair(daemon, other.name, group: most) {
            report.budgets.append(other.budget("local manifest, \(most)", 5, ratio: a.figure.ratio(to: b.figure)))
        }
    }
}

extension Section {
    /// Two contenders' figures in one situation.
    func pair(_ first: String, _ second: String, group: String = "") -> (Measurement, Measurement)? {
        guard let a = measurements.first(where: { $0.name == first && $0.group == group }),
            let b = measurements.first(where: { $0.name == second && $0.group == group })
        else { return nil }
        return (a, b)
    }
}
