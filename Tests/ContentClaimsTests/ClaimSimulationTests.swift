import TestSupport
import Testing

/// Cold starts with every fault. `SPEGEL_TEST_FULL=1` makes it 1,000 nodes and 20 contents.
@Suite(.timeLimit(.minutes(60))) struct ClaimSimulationTests {
    private static func run(_ title: String, _ change: (inout ClaimSimulation.Setup) -> Void) -> ClaimSimulation.Outcome
    {
        var setup = ClaimSimulation.Setup()
        if !Project.isFullScale { (setup.nodes, setup.contents) = (200, 4) }
        change(&setup)
        let outcome = ClaimSimulation.run(setup)
        print(
            "\(title): \(setup.nodes) nodes, \(setup.contents) contents: copies \(outcome.meanCopies) (worst "
                + "\(outcome.worstCopies)), wait p99 \(outcome.wait99) ms, \(outcome.messagesPerNode) messages a node, "
                + "depth \(outcome.deepest), \(outcome.seconds) s, incomplete \(outcome.incomplete)")
        return outcome
    }

    @Test func oneCopyForAll() {
        let outcome = Self.run("no fault") { _ in }
        #expect(outcome.incomplete == 0)
        #expect(outcome.meanCopies <= 1.05)
        #expect(outcome.deepest <= 6)
    }

    @Test(arguments: [0.1, 0.3]) func nodesDie(part: Double) {
        let outcome = Self.run("\(part) of the nodes die") { $0.deaths = part }
        #expect(outcome.incomplete == 0)
        #expect(outcome.meanCopies <= 1.05)
        #expect(outcome.worstCopies <= 3)
    }

    @Test func viewsAreSplit() {
        let outcome = Self.run("a tenth sees another arbiter") { $0.splitViews = 0.1 }
        #expect(outcome.incomplete == 0)
        #expect(outcome.meanCopies <= 1.05)
        #expect(outcome.worstCopies <= 3)
    }

    @Test func theArbiterDies() {
        let outcome = Self.run("the arbiter dies") { $0.arbiterDies = true }
        #expect(outcome.incomplete == 0)
        #expect(outcome.meanCopies <= 1.05)
        #expect(outcome.worstCopies <= 3)
    }

    @Test func theLeaderNeverStarts() {
        let outcome = Self.run("the leader never starts") { $0.leaderNeverStarts = true }
        #expect(outcome.incomplete == 0)
        #expect(outcome.meanCopies <= 1.05)
        #expect(outcome.worstCopies <= 3)
    }

    @Test func theLeaderDiesHalfWay() {
        let outcome = Self.run("the leader dies half-way") { $0.leaderDiesHalfWay = true }
        #expect(outcome.incomplete == 0)
        #expect(outcome.meanCopies <= 1.05)
        #expect(outcome.worstCopies <= 3)
    }
}
