import ArgumentParser

/// Measures the parts of the project against the budgets they have. Each subcommand prints a table and what it was
/// measured on.
@main
struct Benchmarks: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Benchmarks",
        abstract: "Measures the parts of spegel; run a release build.",
        subcommands: [
            ServeBenchmark.self, ConnectionsBenchmark.self, ServerProcessCommand.self, DHTBenchmark.self,
            MirrorBenchmark.self, MirrorProcessCommand.self, ContainerdBenchmark.self, StoreServerCommand.self,
        ]
    )
}
