import ArgumentParser
import NIOCore
import PeerRouting
import TestSupport

/// Simulated clusters: how lookups scale with their size, and whether they survive churn.
struct DHTBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dht",
        abstract: "Kademlia over a virtual network and clock: round trips, success rates and traffic.")

    @Option(parsing: .upToNextOption, help: "Numbers of nodes to measure.")
    var nodes: [Int] = [10, 100, 1000]

    @Option(help: "Keys each node advertises.")
    var keys = 10

    @Option(help: "Lookups of existing keys, and as many of missing ones.")
    var lookups = 1000

    @Option(help: "Minutes of steady state in which messages are counted.")
    var minutes = 30

    @Flag(help: "Replace half of the nodes per hour instead, for the given minutes.")
    var churn = false

    @Option(help: "Decides everything that is random.")
    var seed: UInt64 = 1

    func run() throws {
        print(
            churn
                ? "nodes  keys  replaced  lookups  (cut short)  found    ms: p50  p99  max  messages/node/min (min/median/max)"
                : """
                nodes  keys  lookups  found    round trips: mean  p50  p99  max  miss p50  max  \
                ms: p50  p99  miss p99  messages/node/min (min/median/max)  table  records/node
                """)
        for count in nodes { churn ? measureChurn(count) : measureScaling(count) }
    }

    /// Lets a cluster grow in about two virtual minutes, each node joining by one of those before it.
    private func grow(_ count: Int) -> SimulatedNetwork {
        var configuration = SimulationConfiguration()
        configuration.seed = seed
        let network = SimulatedNetwork(configuration: configuration)
        let pause = TimeAmount.nanoseconds(120_000_000_000 / Int64(count))
        for number in 0..<count {
            network.addNode(bootstrap: number == 0 ? [] : [number / 2])
            network.run(for: pause)
        }
        network.run(for: .minutes(1))
        for number in network.living {
            network.advertise(SimulatedChurn.keys(of: number, count: keys), by: number)
            network.run(for: .milliseconds(60_000 / Int64(count)))
        }
        network.run(for: .minutes(2))
        return network
    }

    private func measureScaling(_ count: Int) {
        let network = grow(count)
        var random = SplitMix64(seed: seed)
        func ask(_ key: (Int) -> String) -> [(holder: Int, search: Int)] {
            (0..<lookups).map { index in
                let holder = Int.random(in: 0..<count, using: &random)
                let asker = (holder + 1 + Int.random(in: 0..<count - 1, using: &random)) % count
                let search = network.search(key(holder), by: asker)
                network.run(for: .milliseconds(5))
                return (holder, search)
            }
        }
        // The depths are counted by the nodes; those of searches before are to be left out.
        let depthsBefore = network.firstProviderDepths()
        let hits = ask { "\($0)/\(Int.random(in: 0..<keys, using: &random))" }
        network.run(for: .seconds(30))
        var depths = difference(network.firstProviderDepths(), depthsBefore)
        // Those answered from the asker's own records needed no round trip.
        let remote = depths.reduce(0, +)
        let found = hits.count { network.searches[$0.search].found.first == $0.holder }
        if depths.isEmpty { depths = [0] }
        depths[0] += UInt64(max(0, found - Int(remote)))
        let missesBefore = network.missDepths()
        let misses = ask { "missing \($0) \(random.next())" }
        network.run(for: .seconds(30))
        let missDepths = difference(network.missDepths(), missesBefore)

        let from = network.messagesPerMinute.count
        network.run(for: .minutes(Int64(minutes)))
        let perNode = perNodeAndMinute(network, from: from)
        let tables = network.living.map { network.tableSize(of: $0) }.reduce(0, +) / count
        let records = network.living.map { network.recordCount(of: $0) }.reduce(0, +) / count
        let hitTimes = hits.compactMap { network.searches[$0.search].timeToFirst }.sorted()
        let missTimes = misses.compactMap { network.searches[$0.search].duration }.sorted()
        print(
            count, count * keys, lookups, percent(found, hits.count), "", mean(depths), quantile(depths, 0.5),
            quantile(depths, 0.99), depths.count - 1, "", quantile(missDepths, 0.5), missDepths.count - 1, "",
            milliseconds(hitTimes, 0.5), milliseconds(hitTimes, 0.99), milliseconds(missTimes, 0.99), "",
            spread(perNode), "", tables, records, separator: "  ")
    }

    private func measureChurn(_ count: Int) {
        let network = grow(count)
        network.run(for: .minutes(15))
        let from = network.messagesPerMinute.count
        var churn = SimulatedChurn(network: network, keysPerNode: keys, seed: seed)
        let replaced = max(1, count * minutes / 120)
        churn.replace(replaced, in: .minutes(Int64(minutes)), lookups: max(1, lookups / replaced))
        let lost = churn.lost
        for lookup in lost {
            let search = network.searches[lookup.search]
            print(
                "lost: node \(lookup.asker) asked for a key of \(lookup.holder), found \(search.found) in",
                search.duration.map { "\(decimal(Double($0.nanoseconds) / 1e6)) ms" } ?? "vain")
        }
        let times = churn.lookups.compactMap { network.searches[$0.search].timeToFirst }.sorted()
        print(
            count, count * keys, replaced, churn.lookups.count, churn.orphaned,
            percent(churn.lookups.count - lost.count, churn.lookups.count), "", milliseconds(times, 0.5),
            milliseconds(times, 0.99), milliseconds(times, 1), "", spread(perNodeAndMinute(network, from: from)),
            separator: "  ")
    }

    private func perNodeAndMinute(_ network: SimulatedNetwork, from: Int) -> [Double] {
        (from..<network.nodesPerMinute.count).map {
            Double(network.messagesPerMinute[$0]) / Double(network.nodesPerMinute[$0])
        }
    }

    /// Least, middle and most.
    private func spread(_ values: [Double]) -> String {
        "\(decimal(values.min() ?? 0))/\(decimal(values.median))/\(decimal(values.max() ?? 0))"
    }

    private func difference(_ after: [UInt64], _ before: [UInt64]) -> [UInt64] {
        after.enumerated().map { $0.element - ($0.offset < before.count ? before[$0.offset] : 0) }
    }

    private func mean(_ counts: [UInt64]) -> String {
        let total = counts.reduce(0, +)
        let sum = counts.enumerated().reduce(0) { $0 + $1.offset * Int($1.element) }
        return decimal(total == 0 ? 0 : Double(sum) / Double(total))
    }

    private func quantile(_ counts: [UInt64], _ fraction: Double) -> Int {
        let total = counts.reduce(0, +)
        var seen: UInt64 = 0
        for (value, count) in counts.enumerated() {
            seen += count
            if Double(seen) >= fraction * Double(total) { return value }
        }
        return counts.count - 1
    }

    private func milliseconds(_ sorted: [TimeAmount], _ fraction: Double) -> String {
        guard !sorted.isEmpty else { return "-" }
        let index = min(sorted.count - 1, Int(fraction * Double(sorted.count)))
        return decimal(Double(sorted[index].nanoseconds) / 1e6)
    }

    private func percent(_ part: Int, _ whole: Int) -> String {
        whole == 0 ? "-" : decimal(100 * Double(part) / Double(whole), digits: 2) + "%"
    }

    private func decimal(_ value: Double, digits: Int = 1) -> String {
        let scale = digits == 1 ? 10.0 : 100.0
        return "\((value * scale).rounded() / scale)"
    }
}
