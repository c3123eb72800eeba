import Testing

/// Four containerds that pull the same new image at once, each with a daemon and an address of its own: `Benchmarks cluster`.
@Suite(.serialized, .timeLimit(.minutes(10))) struct ColdStartClusterTests {
    /// containerd checks every digest, so that a pull that succeeds has the right bytes.
    @Test(arguments: [
        ["cold-start", "cold-start-join", "cold-start-mixed"],
        ["cold-start-leader-dies", "cold-start-containerd-dies", "cold-start-node-dies", "cold-start-client-leaves"],
    ])
    func oneCopyOfTheUpstreamServesAll(_ scenarios: [String]) async throws {
        // What one machine under load cannot promise is left out: a debug build that stalls for seconds may lose a lease.
        let budgets = try await BenchmarkReport.run(
            ["cluster", "--quick", "--image-size", "8MiB", "--max-copies", "2", "--scenario"] + scenarios)
        #expect(budgets.count >= scenarios.count)
        for budget in budgets { #expect(budget.status == "met", "\(budget)") }
    }
}
