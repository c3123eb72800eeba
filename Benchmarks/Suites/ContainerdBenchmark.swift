import ContainerdTestKit
import ContentStoreConformance
import Foundation
import OCIDistribution
import TestSupport

/// The containerd store against a real containerd: how long it takes to know everything, with how much memory, and what
/// it serves compared with the store on disk.
struct ContainerdBenchmark {
    private let context: BenchmarkContext
    private let blobs = 20
    private let connections = 64
    private var images: Int { context.images }
    private var starts: Int { context.rounds }

    init(_ context: BenchmarkContext) { self.context = context }

    func measure(_ report: inout SuiteReport) async throws {
        var options = ContainerdDaemon.Options()
        // Filling it would take forever with a collection after each change.
        options.collectsAtOnce = false
        let daemon = try await ContainerdDaemon.start(options)
        let sample = try await fill(daemon, &report)
        try await measureStarts(daemon, &report)
        try await measureRequests(daemon, sample, &report)
        try await daemon.stop()
    }

    /// Imports the images and returns one of them.
    private func fill(_ daemon: ContainerdDaemon, _ report: inout SuiteReport) async throws -> SampleContent.Image {
        var source = SampleContent(seed: 1)
        // The first one has a layer of 4 KiB to be asked for.
        let first = source.image(layers: [source.layer(size: 4096)] + (3..<blobs).map { _ in source.layer(size: 300) })
        var all = [first]
        for _ in 1..<images { all.append(source.image(layers: (2..<blobs).map { _ in source.layer(size: 300) })) }
        let file = "\(daemon.path)/images.tar"
        try ImageArchive.write(
            all.enumerated().map { ("registry.example/team/app-\($0.offset):v1", $0.element.manifest.descriptor) },
            blobs: all.flatMap(\.blobs), to: file)
        try await daemon.ctr("images", "import", "--no-unpack", "--all-platforms", file)
        try FileManager.default.removeItem(atPath: file)
        let count = try await daemon.listedDigests().count
        report.notes.append("\(images) images, \(count) blobs in containerd")
        return first
    }

    private func measureStarts(_ daemon: ContainerdDaemon, _ report: inout SuiteReport) async throws {
        var section = Section(title: "from the start until all is known", unit: "s", higherIsBetter: false)
        section.cpuUnit = "s, containerd"
        for (name, path) in [("content path mounted", daemon.contentPath), ("not mounted", "/nonexistent")] {
            var samples: (seconds: [Double], memory: [Double], cpu: [Double]) = ([], [], [])
            for _ in 0..<starts {
                let before = try daemon.processorTime()
                let server = try StoreProcess(["--socket", daemon.socketPath, "--content-path", path])
                samples.seconds.append(server.seconds)
                samples.memory.append(server.residentMiB)
                samples.cpu.append((try daemon.processorTime() - before) / .seconds(1))
                server.stop()
            }
            var row = Measurement(name: name, figure: Summary(samples.seconds), cpu: Summary(samples.cpu))
            row.peakMiB = samples.memory.max()
            section.measurements.append(row)
        }
        let empty = try await ContainerdDaemon.start()
        let idle = try StoreProcess(["--socket", empty.socketPath])
        var row = Measurement(name: "nothing in containerd", figure: Summary([idle.seconds]))
        row.peakMiB = idle.residentMiB
        section.measurements.append(row)
        idle.stop()
        try await empty.stop()
        report.sections.append(section)
        let mounted = section.measurements[0]
        let perTenThousand = ((mounted.peakMiB ?? 0) - (row.peakMiB ?? 0)) / Double(images * blobs) * 10_000
        report.notes.append("memory per 10,000 blobs: \(perTenThousand.text(1)) MiB")
        guard images >= 1000 else {
            report.budgets.append(
                Budget("20,000 blobs known", "<= 5 s, <= 60 MiB", measured: "needs --images 1000", met: nil))
            return
        }
        let (seconds, memory) = (mounted.figure.median, mounted.peakMiB ?? 0)
        report.budgets.append(
            Budget(
                "\(images * blobs) blobs known", "<= 5 s, <= 60 MiB",
                measured: "\(seconds.text(2)) s, \(memory.text(1)) MiB", met: seconds <= 5 && memory <= 60))
    }

    private func measureRequests(
        _ daemon: ContainerdDaemon, _ image: SampleContent.Image, _ report: inout SuiteReport
    ) async throws {
        let wrk = try Tool.find("wrk", package: "wrk")
        let folder = try TemporaryDirectory(inMemory: true)
        // The same image, as another program writes it out.
        try await daemon.ctr(
            "images", "export", "--all-platforms", "\(folder.path)/image.tar", "registry.example/team/app-0:v1")
        try FileManager.default.createDirectory(atPath: "\(folder.path)/layout", withIntermediateDirectories: true)
        _ = try Tool.run("/bin/tar", ["-xf", "\(folder.path)/image.tar", "-C", "\(folder.path)/layout"])
        let containerd = try StoreProcess(["--socket", daemon.socketPath])
        defer { containerd.stop() }
        let onDisk = try StoreProcess(["--layout", "\(folder.path)/layout"])
        defer { onDisk.stop() }

        let prefix = "/v2/team/app-0"
        let cases = [
            ("manifest by digest", "\(prefix)/manifests/\(image.manifest.digest)"),
            ("blob of 4 KiB", "\(prefix)/blobs/\(image.layers[0].digest)"),
        ]
        var section = Section(
            title: "\(connections) connections", unit: "requests/s", cpuUnit: "s, containerd", baseline: "on disk")
        for (name, path) in cases {
            let samples = try await context.interleaved([containerd, onDisk]) { server in
                let before = try daemon.processorTime()
                let rate = try load(wrk, server, path)
                return (rate: rate, cpu: (try daemon.processorTime() - before) / .seconds(1))
            }
            section.measurements.append(
                Measurement(
                    name: "containerd", group: name, figure: Summary(samples[0].map(\.rate)),
                    cpu: Summary(samples[0].map(\.cpu))))
            section.measurements.append(
                Measurement(name: "on disk", group: name, figure: Summary(samples[1].map(\.rate))))
        }
        report.sections.append(section)
        let ratio = section.measurements.compactMap { section.ratio(of: $0) }.min() ?? 0
        report.budgets.append(
            Budget(
                "containerd store beside the store on disk", ">= 0.9 x", measured: "\(ratio.text(2)) x",
                met: ratio >= 0.9))
    }

    private func load(_ wrk: String, _ server: StoreProcess, _ path: String) throws -> Double {
        let result = try Wrk.run(
            wrk, host: "127.0.0.1", port: server.port, paths: ["\(path)?ns=registry.example"],
            connections: connections, seconds: context.seconds)
        guard result.failures == 0 else { throw BenchmarkError("\(result.failures) requests for \(path) failed") }
        return result.rate
    }
}
