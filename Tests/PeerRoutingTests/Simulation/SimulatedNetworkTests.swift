import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

/// A network that grew node by node, each joining by some of those before it: more than two, as a node that knows
/// nobody but liars has no way to learn better.
func grownNetwork(_ count: Int, configuration: SimulationConfiguration = SimulationConfiguration()) -> SimulatedNetwork
{
    let network = SimulatedNetwork(configuration: configuration)
    for number in 0..<count {
        network.addNode(bootstrap: [number / 2, number / 3, number / 5, 0])
        network.run(for: .milliseconds(200))
    }
    network.run(for: .seconds(30))
    return network
}

// One at a time: each keeps a core busy for seconds, and the other tests need one to keep their deadlines.
@Suite(.serialized) struct SimulatedNetworkTests {
    @Test func smallClusterIsAFullMesh() {
        let network = grownNetwork(10)
        for number in network.living { #expect(network.tableSize(of: number) == 9) }
    }

    @Test func everyKeyIsFoundFromEveryNode() {
        let network = grownNetwork(30)
        for number in network.living { network.advertise((0..<3).map { "key \(number) \($0)" }, by: number) }
        network.run(for: .seconds(20))
        var wanted: [Int: Int] = [:]
        for number in network.living {
            for other in network.living where other != number {
                wanted[network.search("key \(other) \(number % 3)", by: number)] = other
            }
        }
        network.run(for: .seconds(20))
        for (search, holder) in wanted { #expect(network.searches[search].found == [holder]) }
    }

    @Test func aMissEnds() throws {
        let network = grownNetwork(30)
        let search = network.search("nobody has this", by: 7)
        network.run(for: .seconds(2))
        #expect(network.searches[search].found.isEmpty)
        #expect(network.searches[search].endedAt != nil)
    }

    @Test func theSameSeedGivesTheSameRun() {
        func run(seed: UInt64) -> ([Int], UInt64) {
            var configuration = SimulationConfiguration()
            configuration.seed = seed
            configuration.loss = 0.01
            let network = grownNetwork(40, configuration: configuration)
            for number in network.living { network.advertise(["a\(number)", "b\(number)"], by: number) }
            network.run(for: .seconds(60))
            for number in 0..<10 { network.kill(number) }
            network.run(for: .minutes(3))
            return (network.messagesPerMinute, network.eventCount)
        }
        let first = run(seed: 5)
        #expect(first == run(seed: 5))
        #expect(first != run(seed: 6))
    }

    @Test func deadNodesAreForgottenAndTheirRecordsNotReturned() {
        let network = grownNetwork(15)
        network.advertise(["shared"], by: 3)
        network.advertise(["shared"], by: 4)
        network.run(for: .seconds(5))
        network.kill(3)
        network.run(for: .minutes(2))
        for number in network.living { #expect(network.tableSize(of: number) == 13) }
        let searches = network.living.filter { $0 != 4 }.map { network.search("shared", limit: 3, by: $0) }
        network.run(for: .seconds(30))
        for search in searches { #expect(network.searches[search].found == [4]) }
    }

    @Test func nobodyIsSentToANodeThatLeft() {
        let network = grownNetwork(15)
        network.advertise(["shared"], by: 3)
        network.advertise(["shared"], by: 4)
        network.run(for: .seconds(5))
        network.leave(3)
        network.run(for: .seconds(1))
        let searches = network.living.filter { $0 != 4 }.map { network.search("shared", limit: 3, by: $0) }
        network.run(for: .seconds(2))
        for search in searches { #expect(network.searches[search].found == [4]) }
        for number in network.living { #expect(network.tableSize(of: number) == 13) }
    }

    @Test func newcomersAreGivenTheRecordsTheyShouldKeep() {
        let network = grownNetwork(8)
        for number in network.living { network.advertise((0..<20).map { "\(number)/\($0)" }, by: number) }
        network.run(for: .seconds(5))
        let newcomer = network.addNode(bootstrap: [0])
        network.run(for: .seconds(10))
        #expect(network.recordCount(of: newcomer) == 8 * 20)
    }

    @Test func recordsOutliveTheirValidityBecauseTheyAreRepeated() {
        var configuration = SimulationConfiguration()
        configuration.reprovideInterval = .minutes(2)
        let network = grownNetwork(25, configuration: configuration)
        for number in network.living { network.advertise((0..<10).map { "\(number)/\($0)" }, by: number) }
        for _ in 0..<6 {
            network.run(for: .minutes(2))
            let searches = network.living.map { number in
                (number + 1, network.search("\((number + 1) % 25)/\(number % 10)", by: number))
            }
            network.run(for: .seconds(10))
            for (holder, search) in searches { #expect(network.searches[search].found == [holder % 25]) }
        }
    }

    @Test func timersDoNotPileUp() {
        var configuration = SimulationConfiguration()
        configuration.reprovideInterval = .minutes(1)
        let network = grownNetwork(30, configuration: configuration)
        for number in network.living { network.advertise((0..<10).map { "\(number)/\($0)" }, by: number) }
        network.run(for: .minutes(2))
        let early = network.living.map { network.timerCount(of: $0) }.reduce(0, +)
        network.run(for: .minutes(20))
        let late = network.living.map { network.timerCount(of: $0) }.reduce(0, +)
        #expect(late < 2 * early + 300, "\(early) timers after two minutes, \(late) after twenty more")
    }

    @Test func partsOfADividedNetworkFindEachOtherAgain() {
        let network = grownNetwork(24)
        network.advertise(["even"], by: 2)
        network.run(for: .seconds(5))
        network.partition { $0 % 2 == 0 }
        network.run(for: .minutes(3))
        for number in network.living { #expect(network.tableSize(of: number) == 11) }
        network.heal()
        network.run(for: .minutes(10))
        for number in network.living { #expect(network.tableSize(of: number) > 11) }
        let search = network.search("even", by: 5)
        network.run(for: .seconds(5))
        #expect(network.searches[search].found == [2])
    }

    @Test func liarsDoNotHideContent() {
        var configuration = SimulationConfiguration()
        configuration.liars = 0.2
        let network = grownNetwork(60, configuration: configuration)
        for number in network.living { network.advertise(["key \(number)"], by: number) }
        network.run(for: .minutes(1))
        var random = SplitMix64(seed: 9)
        let searches = (0..<120).map { _ in
            let holder = Int.random(in: 0..<60, using: &random)
            let asker = (holder + Int.random(in: 1..<60, using: &random)) % 60
            return (holder, network.search("key \(holder)", limit: 0, by: asker))
        }
        network.run(for: .minutes(1))
        let found = searches.count { holder, search in network.searches[search].found.contains(holder) }
        #expect(found == searches.count)
    }

    /// Everything that repeats itself runs five times as fast as usual, and so do the nodes come and go: half of them
    /// per twelve minutes instead of per hour.
    @Test func hundredsOfNodesThatComeAndGo() {
        var configuration = SimulationConfiguration()
        configuration.reprovideInterval = .minutes(3)
        configuration.loss = 0.005
        configuration.failure = 0.001
        let network = grownNetwork(200, configuration: configuration)
        for number in network.living { network.advertise(SimulatedChurn.keys(of: number, count: 2), by: number) }
        network.run(for: .seconds(30))
        var churn = SimulatedChurn(network: network, keysPerNode: 2, seed: 11)
        churn.replace(50, in: .minutes(6), lookups: 10)
        #expect(churn.lookups.count > 450 && churn.replaced == 50)
        let lost = churn.lost.map { (lookup: $0, found: network.searches[$0.search].found) }
        #expect(lost.isEmpty, "\(lost.count) of \(churn.lookups.count) lost: \(lost)")
    }
}
