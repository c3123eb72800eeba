import Testing

/// Honest nodes beside hostile machines, each with an address of its own: `Benchmarks attack`, which `make attack` runs in full.
@Suite(.serialized, .timeLimit(.minutes(10))) struct AttackTests {
    @Test(arguments: [["identities", "absent"], ["impostor", "liar", "tags"]])
    func honestContentIsFound(_ attacks: [String]) async throws {
        let budgets = try await BenchmarkReport.run(["attack", "--quick", "--attack"] + attacks)
        // What depends on speed is not judged here.
        let judged = budgets.filter { !$0.requirement.hasPrefix("p99") }
        #expect(judged.map(\.name) == attacks.map { "attack: \($0)" })
        for budget in judged { #expect(budget.status == "met", "\(budget)") }
    }
}
