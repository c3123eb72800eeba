import ArgumentParser
import ContainerdTestKit
import ContentStoreConformance
import Foundation
import OCIDistribution
import TestSupport

/// The containerd backend against a real containerd: how long it takes to know everything, with how much memory, and what
/// it serves compared with the store on disk.
struct ContainerdBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "containerd",
        abstract: "Start-up and requests per second of the containerd backend, and what containerd itself has to do."
    )

    @Option(help: "Images in containerd.") var images = 1000
    @Option(help: "Blobs of each image: a manifest, a config, and layers.") var blobs = 20
    @Option(help: "Starts that are timed.") var starts = 5
    @Option(help: "Connections of the load generator.") var connections = 64
    @Option(help: "Seconds of each load.") var seconds = 5
    @Option(help: "Rounds of load, of which the median counts.") var rounds = 3

    func validate() throws {
        guard images > 0, blobs > 2, starts > 0, connections > 0, seconds > 0, rounds > 0 else {
            throw ValidationError("all numbers must be positive, and an image has at least 3 blobs")
        }
    }

    func run() async throws {
        print("machine: \(Machine.description)\n")
        var options = ContainerdDaemon.Options()
        // Filling it would take forever with a collection after each change.
        options.collectsAtOnce = false
        let daemon = try await ContainerdDaemon.start(options)
        let sample = try await fill(daemon)
        try await measureStarts(daemon)
        try await measureRequests(daemon, sample)
        try await daemon.stop()
    }

    /// Imports the images and returns one of them.
    private func fill(_ daemon: ContainerdDaemon) async throws -> SampleContent.Image {
        let begin = ContinuousClock.now
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
        print("made \(images) images with \(count) blobs in \((begin.duration(to: .now) / .seconds(1)).text(1)) s\n")
        return first
    }

    private func measureStarts(_ daemon: ContainerdDaemon) async throws {
        var table = Table(header: ["start", "s until all is known", "RSS MiB", "containerd CPU s"])
        var memory: [Double] = []
        for (name, path) in [("content path mounted", daemon.contentPath), ("not mounted", "/nonexistent")] {
            var samples: [(seconds: Double, memory: Double, cpu: Double)] = []
            for _ in 0..<starts {
                let before = try daemon.processorTime()
                let server = try StoreProcess(["--socket", daemon.socketPath, "--content-path", path])
                samples.append(
                    (server.seconds, server.residentMiB, (try daemon.processorTime() - before) / .seconds(1)))
                server.stop()
            }
            memory.append(samples.map(\.memory).median)
            table.rows.append([
                "\(name), median of \(starts)", samples.map(\.seconds).median.text(2),
                samples.map(\.memory).median.text(1), samples.map(\.cpu).median.text(2),
            ])
        }
        let empty = try await ContainerdDaemon.start()
        let idle = try StoreProcess(["--socket", empty.socketPath])
        table.rows.append(["nothing in containerd", idle.seconds.text(2), idle.residentMiB.text(1), "-"])
        let perTenThousand = (memory[0] - idle.residentMiB) / Double(images * blobs) * 10_000
        idle.stop()
        try await empty.stop()
        print("\(table.printed())\nbudget: 5 s, 60 MiB")
        print("memory per 10,000 blobs, content path mounted: \(perTenThousand.text(1)) MiB\n")
    }

    private func measureRequests(_ daemon: ContainerdDaemon, _ image: SampleContent.Image) async throws {
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
        var table = Table(header: [
            "\(connections) connections", "containerd 1/s", "on disk 1/s", "ratio", "containerd CPU s",
        ])
        for (name, path) in cases {
            var rates: (containerd: [Double], onDisk: [Double]) = ([], [])
            var cpu: [Double] = []
            for _ in 0..<rounds {
                let before = try daemon.processorTime()
                rates.containerd.append(try load(wrk, containerd, path))
                cpu.append((try daemon.processorTime() - before) / .seconds(1))
                rates.onDisk.append(try load(wrk, onDisk, path))
            }
            let (own, other) = (rates.containerd.median, rates.onDisk.median)
            table.rows.append([name, own.text(0), other.text(0), (own / other).text(2), cpu.median.text(2)])
        }
        print("\(table.printed())\nbudget: ratio 0.9; containerd's own CPU about zero")
    }

    private func load(_ wrk: String, _ server: StoreProcess, _ path: String) throws -> Double {
        let url = "http://127.0.0.1:\(server.port)\(path)?ns=registry.example"
        let output = try Tool.run(wrk, ["-t", "1", "-c", "\(connections)", "-d", "\(seconds)s", url])
        guard !output.contains("Non-2xx"),
            let line = output.split(separator: "\n").first(where: { $0.contains("Requests/sec:") }),
            let rate = line.split(separator: " ").last.flatMap({ Double($0) })
        else { throw BenchmarkError("wrk said \(output)") }
        return rate
    }
}
