import ArgumentParser
import Foundation
import MirrorServer

/// The program. Its main thread waits, instead of becoming dispatch's, which waits for signals in a way that valgrind does
/// not survive.
@main
enum BenchmarksProgram {
    static func main() {
        let done = DispatchSemaphore(value: 0)
        Task.detached {
            await Benchmarks.start()
            done.signal()
        }
        done.wait()
    }
}

/// Measures the parts of the project beside other programs, against the budgets they have.
struct Benchmarks: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Benchmarks",
        abstract: "Measures spegel beside other programs, against its budgets.",
        usage: """
            Benchmarks [SUITE…] [options]
            Benchmarks                                    a short overview of all suites
            Benchmarks serve mirror --against ./spegel    two suites in full, beside another program
            Benchmarks all --json r.json --html r.html    everything in full
            """,
        discussion: """
            Figures are medians of rounds in which the contenders take turns. The status is 1 when a budget is not met, a
            suite fails, or a pull went wrong. Programs that are missing are installed from Debian. Suites with daemons,
            containerd or a cluster need root, for network namespaces of their own; nothing outside of those is changed.
            'Benchmarks soak --help' and 'Benchmarks hot-path --help' tell of what 'make soak' and 'make hot-paths' run.
            """
    )

    /// Commands of their own, of which most are what a measurement starts as another process. No subcommands: the parser would
    /// take their names for suites.
    private static let others: [any AsyncParsableCommand.Type] = [
        SoakCommand.self, HotPathCommand.self, ServerCommand.self, MirrorCommand.self, StoreServerCommand.self,
        LyingRelayCommand.self, HostilePeerCommand.self,
    ]

    static func start() async {
        let arguments = Array(CommandLine.arguments.dropFirst())
        guard let other = others.first(where: { $0.configuration.commandName == arguments.first }) else {
            return await main(arguments)
        }
        await other.main(Array(arguments.dropFirst()))
    }

    @Argument(help: ArgumentHelp("Suites to run in full, or all; none for a short overview.", valueName: "suite"))
    var suites: [String] = []

    @Flag(name: .long, help: "List the suites and what they measure.") var list = false
    @Flag(name: .long, help: "Smaller content, fewer rounds: all suites end within 10 minutes on two cores.")
    var quick = false
    @Option(help: ArgumentHelp("Write the report as JSON.", valueName: "file")) var json: String?
    @Option(help: ArgumentHelp("Write the report as a page with plots.", valueName: "file")) var html: String?
    @Option(
        help: ArgumentHelp(
            """
            A program with the command line of the Go original, measured beside ours: the same content, containerds and \
            clients.
            """, valueName: "program"))
    var against: String?
    @Option(
        help: ArgumentHelp(
            "As --against, for another build of ours: the budget is then to be no slower than it.", valueName: "program"
        ))
    var old: String?
    @Option(help: ArgumentHelp("Our program; the one beside this by default.", valueName: "program"))
    var spegel: String?

    @Option(help: "Rounds of each measurement.") var rounds: Int?
    @Option(help: "The large blob, such as 1GiB.") var blobSize: ByteCount?
    @Option(help: "How long each load of small requests lasts.") var seconds: Int?
    @Option(parsing: .upToNextOption, help: "Connections of the loads of small requests.") var connections: [Int] = []
    @Option(help: "Event loops, and nginx workers; as many as there are cores by default.") var workers: Int?
    @Option(help: "containerd: images of 20 blobs each.") var images: Int?
    @Option(parsing: .upToNextOption, help: "dht: sizes of the simulated clusters.") var dhtNodes: [Int] = []
    @Flag(name: .long, help: "dht: half of the nodes are replaced within an hour.") var churn = false
    @Option(help: "dht, cluster: decides everything that is random.") var seed: UInt64 = 1
    @Option(
        parsing: .upToNextOption,
        help: "attack: \(Attack.allCases.map(\.rawValue).joined(separator: ", ")); all by default.")
    var attack: [Attack] = []
    @OptionGroup(title: "CLUSTER OPTIONS") var cluster: ClusterOptions

    func validate() throws {
        for name in suites where name != "all" && Suite(rawValue: name) == nil {
            throw ValidationError(
                "no suite '\(name)' (there are all, \(Suite.allCases.map(\.rawValue).joined(separator: ", ")))")
        }
        let numbers = [rounds, seconds, workers, images].compactMap { $0 } + connections
        guard numbers.allSatisfy({ $0 > 0 }), dhtNodes.allSatisfy({ $0 > 1 }) else {
            throw ValidationError("all numbers must be greater than zero, and a simulated cluster has two nodes")
        }
        guard against == nil || old == nil else { throw ValidationError("only one of --against and --old") }
        if let program = against ?? old, !FileManager.default.isExecutableFile(atPath: program) {
            throw ValidationError("'\(program)' is no program that can be run")
        }
    }

    func run() async throws {
        if list {
            for suite in Suite.allCases {
                let name = suite.rawValue.padding(toLength: 12, withPad: " ", startingAt: 0)
                print("\(name)\(suite.title)\(suite.needsRoot ? " (root)" : "")")
            }
            return
        }
        let isOverview = suites.isEmpty
        let chosen = isOverview || suites.contains("all") ? Suite.allCases : suites.compactMap(Suite.init(rawValue:))
        let context = try BenchmarkContext(self, quick: quick || isOverview)
        if geteuid() == 0 {
            // Before the namespace, from which no mirror of Debian can be reached.
            for suite in chosen { try suite.installTools() }
            try BenchmarkNamespace.enter()
        }
        // After the programs of an earlier run have ended, its standard output may be closed.
        signal(SIGPIPE, SIG_IGN)
        OpenFileLimit.raise()
        var report = Report(date: Date(), machine: .current(), settings: settings(context))
        print("machine: \(report.machine.description); \(report.machine.build) build")
        if let warning = report.machine.warning { print("NOTE: \(warning)") }
        if isOverview { print("a short overview of all suites; Benchmarks all measures in full\n") }
        let lab = Lab(context)
        for suite in chosen {
            let result = await run(suite, context, lab)
            report.suites.append(result)
            say(TextReport.suite(result))
            // After each suite, so that an interrupted run leaves what it has.
            try write(report)
        }
        await lab.close()
        if !report.budgets.isEmpty { print(TextReport.budgets(report.budgets)) }
        for path in [json, html].compactMap({ $0 }) { print("wrote \(path)") }
        if report.failed { throw ExitCode(1) }
    }

    private func run(_ suite: Suite, _ context: BenchmarkContext, _ lab: Lab) async -> SuiteReport {
        let begin = ContinuousClock.now
        var result = SuiteReport(suite)
        do {
            if suite.needsRoot, geteuid() != 0 { throw BenchmarkError("needs root; not measured") }
            try await suite.measure(context, lab, &result)
        } catch {
            result.error = "\(error)"
        }
        result.seconds = begin.duration(to: .now) / .seconds(1)
        return result
    }

    private func settings(_ context: BenchmarkContext) -> [String: String] {
        var settings = [
            "rounds": "\(context.rounds)", "blob-size": "\(context.blobSize)", "seconds": "\(context.seconds)",
            "connections": context.connections.map(String.init).joined(separator: " "),
            "workers": "\(context.workers)", "seed": "\(seed)",
        ]
        if let other = context.against { settings[other.name] = (other.program as NSString).lastPathComponent }
        if context.quick { settings["quick"] = "" }
        return settings
    }

    private func write(_ report: Report) throws {
        if let json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            encoder.dateEncodingStrategy = .iso8601
            try encoder.encode(report).write(to: URL(fileURLWithPath: json), options: .atomic)
        }
        if let html { try HTMLReport.page(report).write(toFile: html, atomically: true, encoding: .utf8) }
    }

    /// Not print alone, whose buffer would keep it from a pipe.
    private func say(_ text: String) {
        print(text)
        fflush(nil)
    }
}

/// A number of bytes as other tools write it: 512, 64KiB, 1GiB, 100MB.
struct ByteCount: ExpressibleByArgument, CustomStringConvertible {
    var bytes: Int

    init(bytes: Int) { self.bytes = bytes }

    init?(argument: String) {
        let units = [
            ("", 1), ("B", 1), ("kB", 1000), ("KB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("KiB", 1 << 10),
            ("MiB", 1 << 20), ("GiB", 1 << 30), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30),
        ]
        let digits = argument.prefix { $0.isASCII && $0.isNumber }
        guard let number = Int(digits), let unit = units.first(where: { $0.0 == argument.dropFirst(digits.count) }),
            case let (bytes, overflow) = number.multipliedReportingOverflow(by: unit.1), !overflow, bytes > 0
        else { return nil }
        self.bytes = bytes
    }

    var description: String {
        for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] where bytes % size == 0 {
            return "\(bytes / size)\(unit)"
        }
        return "\(bytes)B"
    }
}
