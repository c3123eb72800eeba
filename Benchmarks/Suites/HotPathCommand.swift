import ArgumentParser
import Foundation
import PeerRouting

/// Instructions and allocations of the daemon's parts for each request, as valgrind counts them: other work on the machine
/// does not change them.
struct HotPathCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hot-path",
        abstract: "Instructions and allocations for each request, beside those that the repository has.",
        discussion: """
            Each path is run twice under callgrind with different numbers of requests; the difference is what the requests \
            took. valgrind has no SHA extensions, so that verified content costs more here than in life.
            """
    )

    @Option(help: ArgumentHelp("The table to compare with.", valueName: "file")) var table = "Benchmarks/hot-paths.json"
    @Option(help: "Percent above the table that is an error; figures as much below it are said.") var margin = 5.0
    @Flag(help: "Write the table instead of comparing.") var write = false
    @Option(parsing: .upToNextOption, help: "Paths; all by default.") var only: [String] = []
    @Option(help: ArgumentHelp("Keep callgrind's output here, for callgrind_annotate.", valueName: "directory"))
    var keep: String?
    /// What runs under callgrind for the path `lookup`.
    @Option(help: .hidden) var simulateLookups: Int?

    /// What one request takes.
    struct Cost: Codable {
        var instructions: Double
        var allocations: Double
    }

    private enum Path: String, CaseIterable {
        case localManifest = "local manifest", localBlob = "local blob of 4 KiB"
        case relayedSmall = "blob of 4 KiB through a peer"
        case relayedChunk = "1 MiB through a peer, not verified", verifiedChunk = "1 MiB through a peer, verified"
        case lookup = "lookup among 100 nodes, with the answers"

        /// Few and many requests.
        var counts: (Int, Int) {
            switch self {
            case .localManifest, .localBlob, .relayedSmall: (300, 1500)
            case .relayedChunk, .verifiedChunk: (40, 200)
            case .lookup: (100, 500)
            }
        }
    }

    func run() async throws {
        if let simulateLookups { return Self.lookUp(simulateLookups) }
        signal(SIGPIPE, SIG_IGN)
        let valgrind = try Tool.find("valgrind", package: "valgrind")
        let paths = Path.allCases.filter { path in only.isEmpty || only.contains { path.rawValue.hasPrefix($0) } }
        guard !paths.isEmpty else {
            throw ValidationError("no such path (there are \(Path.allCases.map(\.rawValue).joined(separator: "; ")))")
        }
        if Machine.isDebugBuild { print("NOTE: DEBUG BUILD: its counts are not those of the table; use -c release") }
        let images = try BenchmarkImages(layerBytes: 1 << 20)
        // Valgrind does not read the compiler's debug information, and needs only the symbols.
        let program = "\(NSTemporaryDirectory())/spegel-benchmarks-\(UUID().uuidString)"
        defer { unlink(program) }
        let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path
        _ = try Tool.run(try Tool.find("strip", package: "binutils"), ["--strip-debug", "-o", program, own])
        var costs: [String: Cost] = [:]
        for path in paths {
            let counts = path.counts
            let few = try total(valgrind, program, path, counts.0, images)
            let many = try total(valgrind, program, path, counts.1, images)
            let difference = Double(counts.1 - counts.0)
            costs[path.rawValue] = Cost(
                instructions: (many.instructions - few.instructions) / difference,
                allocations: (many.allocations - few.allocations) / difference)
            print("\(path.rawValue): done")
            fflush(nil)
        }
        if write {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            let rounded = costs.mapValues {
                Cost(instructions: $0.instructions.rounded(), allocations: ($0.allocations * 10).rounded() / 10)
            }
            try (encoder.encode(rounded) + Data("\n".utf8)).write(to: URL(fileURLWithPath: table), options: .atomic)
        }
        try compare(costs, paths)
    }

    private func compare(_ costs: [String: Cost], _ paths: [Path]) throws {
        let known =
            try FileManager.default.contents(atPath: table).map {
                try JSONDecoder().decode([String: Cost].self, from: $0)
            } ?? [:]
        var text = Table(header: ["for each request", "instructions", "table", "%", "allocations", "table", ""])
        var failed = false
        for path in paths {
            guard let cost = costs[path.rawValue] else { continue }
            guard let before = known[path.rawValue] else {
                text.rows.append([
                    path.rawValue, cost.instructions.text(0), "-", "", cost.allocations.text(1), "-",
                    "not in the table",
                ])
                failed = true
                continue
            }
            let percent = (cost.instructions / before.instructions - 1) * 100
            // An allocation more is seen, but not one in ten requests.
            let allocates = cost.allocations > before.allocations * (1 + margin / 100) + 0.5
            let isWorse = percent > margin || allocates
            failed = failed || isWorse
            text.rows.append([
                path.rawValue, cost.instructions.text(0), before.instructions.text(0), percent.text(1),
                cost.allocations.text(1), before.allocations.text(1),
                isWorse ? "MORE" : percent < -margin ? "less: update the table" : "ok",
            ])
        }
        print(text.printed())
        if failed {
            print(
                "more than \(margin.text(1)) % above \(table); --write takes the new figures, if they are what is wanted"
            )
            throw ExitCode(1)
        }
    }

    // MARK: Runs

    private func total(
        _ valgrind: String, _ program: String, _ path: Path, _ count: Int, _ images: BenchmarkImages
    ) throws -> Cost {
        let name = path.rawValue.replacingOccurrences(of: " ", with: "-")
        let output = "\(keep ?? NSTemporaryDirectory())/callgrind.\(name).\(count)"
        defer { if keep == nil { unlink(output) } }
        let command = [valgrind, "--tool=callgrind", "--callgrind-out-file=\(output)", "--quiet", program]
        switch path {
        case .lookup:
            _ = try Tool.run(valgrind, command.dropFirst() + ["hot-path", "--simulate-lookups", "\(count)"])
        case .localManifest:
            try drive(["server", "--store", images.directory, "--event-loops", "1"], command, images.manifest, count)
        case .localBlob:
            try drive(
                ["server", "--store", images.directory, "--event-loops", "1"], command, images.smallLayers[0], count)
        case .relayedSmall: try relay(images, [], command, images.smallLayers[0], count)
        case .relayedChunk: try relay(images, ["--unverified"], command, images.mediumLayers[0], count)
        case .verifiedChunk: try relay(images, [], command, images.mediumLayers[0], count)
        }
        return try Self.read(output)
    }

    private func relay(
        _ images: BenchmarkImages, _ arguments: [String], _ command: [String], _ content: BenchmarkImages.Content,
        _ count: Int
    ) throws {
        let source = try OwnServer(images, eventLoops: 1)
        defer { source.stop() }
        try drive(
            ["mirror-node", "--peer-port", "\(source.port)", "--event-loops", "1"] + arguments, command, content, count)
    }

    /// Sends requests one after the other on one connection, and lets the process end by itself.
    private func drive(
        _ arguments: [String], _ command: [String], _ content: BenchmarkImages.Content, _ count: Int
    ) throws {
        let process = try OwnProcess(arguments, command: command)
        defer { process.stop() }
        let client = try ClientSocket(port: process.port, timeoutSeconds: 300)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        for _ in 0..<count {
            let length = try client.get(content.registryPath, buffer: buffer)
            guard length == Int64(content.bytes) else { throw BenchmarkError("\(length) bytes for \(content.digest)") }
        }
    }

    /// Searches in a simulated cluster, whose nodes all run in this process.
    private static func lookUp(_ count: Int) {
        var configuration = SimulationConfiguration()
        configuration.seed = 1
        let network = SimulatedNetwork(configuration: configuration)
        for number in 0..<100 {
            network.addNode(bootstrap: number == 0 ? [] : [number / 2])
            network.run(for: .seconds(1))
        }
        for number in network.living { network.advertise(SimulatedChurn.keys(of: number, count: 5), by: number) }
        network.run(for: .minutes(2))
        for number in 0..<count {
            _ = network.search("\(number % 100)/\(number % 5)", by: (number * 7 + 1) % 100)
            network.run(for: .milliseconds(100))
        }
    }

    /// Reads the sum of instructions, and how often memory was allocated.
    private static func read(_ path: String) throws -> Cost {
        let allocators: Set<String> = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"]
        let text = Machine.file(path)
        var (cost, callee) = (Cost(instructions: 0, allocations: 0), Substring())
        var names: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            if line.hasPrefix("fn=") || line.hasPrefix("cfn=") {
                // `(12) name` where it occurs first, `(12)` afterwards.
                let value = line.drop { $0 != "=" }.dropFirst()
                let number = value.prefix { $0 != " " }
                if number.count < value.count { names[number] = value.dropFirst(number.count + 1) }
                if line.hasPrefix("c") { callee = names[number] ?? "" }
            } else if line.hasPrefix("calls="), allocators.contains(String(callee)) {
                cost.allocations += Double(line.dropFirst(6).prefix { $0.isNumber }) ?? 0
            } else if line.hasPrefix("totals:") {
                cost.instructions = line.split(separator: " ").last.flatMap { Double($0) } ?? 0
            }
        }
        guard cost.instructions > 0 else { throw BenchmarkError("callgrind wrote nothing of use to \(path)") }
        return cost
    }
}
