import Foundation
import TestSupport
import Testing

/// Honest nodes beside hostile machines, each with an address of its own: `Benchmarks attack`, which `make attack` runs in full.
@Suite(.serialized, .timeLimit(.minutes(10))) struct AttackTests {
    private struct Report: Decodable {
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
    }

    @Test(arguments: [["identities", "absent"], ["impostor", "liar", "tags"]])
    func honestContentIsFound(_ attacks: [String]) async throws {
        let directory = try TemporaryDirectory("a")
        let file = directory.path("report.json")
        let result = try await Command.run(
            [
                try Project.program("Benchmarks"), "attack", "--quick", "--json", file, "--spegel",
                try Project.program(), "--attack",
            ] + attacks, limit: .seconds(300))
        let data = try #require(FileManager.default.contents(atPath: file), "\(result)")
        let report = try JSONDecoder().decode(Report.self, from: data)
        for suite in report.suites { #expect(suite.error == nil) }
        // What depends on speed is not judged here.
        let judged = report.suites.flatMap(\.budgets).filter { !$0.requirement.hasPrefix("p99") }
        #expect(judged.map(\.name) == attacks.map { "attack: \($0)" })
        for budget in judged { #expect(budget.status == "met", "\(budget)") }
    }
}
