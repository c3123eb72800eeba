import Foundation
import TestSupport
import Testing

/// What a suite of `Benchmarks` found, for suites that also are tests: they start machines of their own in network namespaces.
struct BenchmarkReport: Decodable {
    struct Suite: Decodable {
        var budgets: [Budget]
        var error: String?
    }

    struct Budget: Decodable {
        var name: String
        var requirement: String
        var measured: String
        var status: String
    }

    var suites: [Suite]

    /// Runs suites with the daemon of this build; each must come to its end.
    static func run(_ arguments: [String]) async throws -> [Budget] {
        let directory = try TemporaryDirectory("b")
        let file = directory.path("report.json")
        let result = try await Command.run(
            [try Project.program("Benchmarks")] + arguments + ["--json", file, "--spegel", try Project.program()],
            limit: .seconds(400))
        let data = try #require(FileManager.default.contents(atPath: file), "\(result)")
        let report = try JSONDecoder().decode(BenchmarkReport.self, from: data)
        for suite in report.suites { #expect(suite.error == nil) }
        return report.suites.flatMap(\.budgets)
    }
}
