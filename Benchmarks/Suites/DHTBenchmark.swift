import NIOCore
import PeerRouting
import TestSupport

/// Simulated clusters: how lookups scale with their size, and whether they survive churn.
struct DHTBenchmark {
    private let context: BenchmarkContext
    /// Keys each node advertises.
    private let keys: Int
    /// Lookups of existing keys, and as many of missing ones.
    private let lookups: Int
    /// Minutes of steady state in which messages are counted, or in which nodes are replaced.
    private let minutes: Int
    private var seed: UInt64 { context.seed }

    init(_ context: BenchmarkContext) {
        self.context = context
        keys = context.churn ? 100 : 10
        lookups = context.quick ? 300 : 1000
        minutes = context.quick ? 5 : 30
    }

    func measure(_ report: inout SuiteReport) {
        report.notes.append(
            "Kademlia over a virtual network and clock: the same code as on sockets; \(keys) keys a node, "
                + "\(lookups) lookups of existing keys and as many of missing ones")
        var section = Section(
            title: context.churn ? "lookups while half of the nodes are replaced in an hour" : "lookups",
            unit: context.churn ? "ms (median)" : "round trips (p99)", higherIsBetter: false)
        for count in context.dhtNodes {
            section.measurements.append(context.churn ? churn(count, &report) : scaling(count, &report))
        }
        report.sections.append(section)
        for (count, limit) in [(1000, 3), (10_000, 4)] where !context.churn && !context.dhtNodes.contains(count) {
            report.budgets.append(
                Budget(
                    "lookup, \(count) nodes", "p99 <= \(limit) round trips", measured: "needs --dht-nodes \(count)",
                    met: nil))
        }
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

    private func scaling(_ count: Int, _ report: inout SuiteReport) -> Measurement {
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
        var row = Measurement(name: "\(count) nodes", figure: Summary([Double(quantile(depths, 0.99))]))
        let rate = 100 * Double(found) / Double(max(1, hits.count))
        row.values = [
            .init(name: "mean", value: mean(depths), unit: "", places: 1),
            .init(name: "max", value: Double(depths.count - 1), unit: ""),
            .init(name: "miss max", value: Double(max(0, missDepths.count - 1)), unit: ""),
            .init(name: "found", value: rate, unit: "%", places: 2),
            .init(name: "p50", value: milliseconds(hitTimes, 0.5), unit: "ms", places: 1),
            .init(name: "p99", value: milliseconds(hitTimes, 0.99), unit: "ms", places: 1),
            .init(name: "miss p99", value: milliseconds(missTimes, 0.99), unit: "ms", places: 1),
            .init(name: "messages", value: perNode.median, unit: "1/node/min", places: 1),
            .init(name: "table", value: Double(tables), unit: ""),
            .init(name: "records", value: Double(records), unit: "1/node"),
        ]
        if let limit = [1000: 3, 10_000: 4][count] {
            let p99 = quantile(depths, 0.99)
            report.budgets.append(
                Budget(
                    "lookup, \(count) nodes", "p99 <= \(limit) round trips", measured: "\(p99)",
                    met: p99 <= limit, always: true))
        }
        return row
    }

    private func churn(_ count: Int, _ report: inout SuiteReport) -> Measurement {
        let network = grow(count)
        network.run(for: .minutes(15))
        let from = network.messagesPerMinute.count
        var churn = SimulatedChurn(network: network, keysPerNode: keys, seed: seed)
        let replaced = max(1, count * minutes / 120)
        churn.replace(replaced, in: .minutes(Int64(minutes)), lookups: max(1, lookups / replaced))
        let lost = churn.lost
        for lookup in lost {
            let search = network.searches[lookup.search]
            let time = search.duration.map { "\((Double($0.nanoseconds) / 1e6).text(1)) ms" } ?? "vain"
            report.notes.append(
                "lost: node \(lookup.asker) asked for a key of \(lookup.holder), found \(search.found) in \(time)")
        }
        let times = churn.lookups.compactMap { network.searches[$0.search].timeToFirst }.sorted()
        var row = Measurement(name: "\(count) nodes", figure: Summary([milliseconds(times, 0.5)]))
        let found = Double(churn.lookups.count - lost.count) / Double(max(1, churn.lookups.count))
        row.values = [
            .init(name: "replaced", value: Double(replaced), unit: ""),
            .init(name: "lookups", value: Double(churn.lookups.count), unit: ""),
            .init(name: "cut short", value: Double(churn.orphaned), unit: ""),
            .init(name: "found", value: 100 * found, unit: "%", places: 2),
            .init(name: "p99", value: milliseconds(times, 0.99), unit: "ms", places: 1),
            .init(name: "max", value: milliseconds(times, 1), unit: "ms", places: 1),
            .init(
                name: "messages", value: perNodeAndMinute(network, from: from).median, unit: "1/node/min", places: 1),
        ]
        return row
    }

    private func perNodeAndMinute(_ network: SimulatedNetwork, from: Int) -> [Double] {
        (from..<network.nodesPerMinute.count).map {
            Double(network.messagesPerMinute[$0]) / Double(network.nodesPerMinute[$0])
        }
    }

    private func difference(_ after: [UInt64], _ before: [UInt64]) -> [UInt64] {
        after.enumerated().map { $0.element - ($0.offset < before.count ? before[$0.offset] : 0) }
    }

    private func mean(_ counts: [UInt64]) -> Double {
        let total = counts.reduce(0, +)
        let sum = counts.enumerated().reduce(0) { $0 + $1.offset * Int($1.element) }
        return total == 0 ? 0 : Double(sum) / Double(total)
    }

    private func quantile(_ counts: [UInt64], _ fraction: Double) -> Int {
        let total = counts.reduce(0, +)
        var seen: UInt64 = 0
        for (value, count) in counts.enumerated() {
            seen += count
            if Double(seen) >= fraction * Double(total) { return value }
        }
        return max(0, counts.count - 1)
    }

    private func milliseconds(_ sorted: [TimeAmount], _ fraction: Double) -> Double {
        guard !sorted.isEmpty else { return 0 }
        let index = min(sorted.count - 1, Int(fraction * Double(sorted.count)))
        return Double(sorted[index].nanoseconds) / 1e6
    }
}
