import ArgumentParser
import Foundation
import PeerRouting

/// A cluster under load and faults for a long time, with every byte checked.
struct SoakCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "soak",
        abstract: "Load and seeded faults on a cluster for a long time; every byte is checked, and growth watched.",
        discussion: """
            Faults come one at a time: daemons that are killed, stopped, replaced or run out of descriptors, containerds \
            that are killed or whose disk is full, peers that lie, reset, stall, truncate or refuse, and an upstream that is \
            down. The same seed gives the same faults in the same order. A false 404, a failed pull and an error count when \
            they happen between faults; a wrong byte counts always, but in a byte range while a peer lies: a part of a blob \
            cannot be verified. The status is 1 when anything counts. Clocks are not turned: they are the machine's.
            """
    )

    @Option(help: "How long, such as 90s, 60m or 8h.") var duration = SoakDuration(seconds: 600)
    @Option(help: "Decides faults, content and requests; any by default, which is printed.") var seed: UInt64?
    @Option(help: "Nodes; the last two stand behind relays that do wrong.") var nodes = 5
    @Option(help: "Concurrent clients.") var clients = 4
    @Option(help: ArgumentHelp("Our program; the one beside this by default.", valueName: "program"))
    var spegel: String?
    @Option(help: ArgumentHelp("Write the summary as JSON.", valueName: "file")) var json: String?

    private static let seedVariable = "SPEGEL_SOAK_SEED"

    func validate() throws {
        guard (4...100).contains(nodes), (1...100).contains(clients) else {
            throw ValidationError("there are 4 to 100 nodes and 1 to 100 clients")
        }
    }

    func run() async throws {
        for (name, package) in ClusterBenchmark.tools + [("prlimit", "util-linux")] {
            _ = try Tool.find(name, package: package)
        }
        // Chosen before this program is run again in its namespace, so that it is the same there.
        let inherited = ProcessInfo.processInfo.environment[Self.seedVariable].flatMap { UInt64($0) }
        let seed = self.seed ?? inherited ?? UInt64.random(in: 1...999_999)
        setenv(Self.seedVariable, "\(seed)", 1)
        try BenchmarkNamespace.enter()
        signal(SIGPIPE, SIG_IGN)
        let machine = Machine.current()
        say("machine: \(machine.description); \(machine.build) build")
        say("soak of \(duration) with --seed \(seed), \(nodes) nodes, \(clients) clients")
        let ledger = SoakLedger(seed: seed)
        let soak = try await Soak.start(
            program: BenchmarkContext.daemon(spegel), nodes: nodes, seed: seed, ledger: ledger)
        try await soak.run(for: .seconds(duration.seconds), clients: clients)
        try await soak.close()
        let summary = ledger.summary(growthJudgedFrom: 600)
        say(summary.text)
        if let json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            try encoder.encode(summary).write(to: URL(fileURLWithPath: json), options: .atomic)
        }
        if !summary.held {
            say(
                "repeat with: Benchmarks soak --duration \(duration) --nodes \(nodes) --clients \(clients) --seed \(seed)"
            )
            throw ExitCode(1)
        }
    }

    private func say(_ text: String) {
        print(text)
        fflush(nil)
    }
}

/// A time as people write it: 90s, 60m, 8h.
struct SoakDuration: ExpressibleByArgument, CustomStringConvertible {
    var seconds: Int

    init(seconds: Int) { self.seconds = seconds }

    init?(argument: String) {
        guard let unit = argument.last, let factor = ["s": 1, "m": 60, "h": 3600][unit],
            let number = Int(argument.dropLast()), (1...1_000_000).contains(number)
        else { return nil }
        seconds = number * factor
    }

    var description: String { "\(seconds)s" }
}
