import ContainerdTestKit
import Foundation
import TestSupport

/// Roll-outs of an image in a cluster: how long the nodes take, and what the upstream has to send.
struct ClusterBenchmark {
    private let context: BenchmarkContext
    private let settings: Cluster.Settings
    private let imageBytes: Int
    private var count: Int { settings.nodes }

    static let tools =
        ClusterNetwork.tools + [
            ("containerd", "containerd"), ("ctr", "containerd"), ("docker-registry", "docker-registry"),
            ("skopeo", "skopeo"),
        ]

    init(_ context: BenchmarkContext) {
        self.context = context
        let (options, quick) = (context.cluster, context.quick)
        imageBytes = options.imageSize?.bytes ?? (quick ? 16 << 20 : 64 << 20)
        settings = Cluster.Settings(
            nodes: options.nodes ?? (quick ? 4 : 16),
            shape: LinkShape(
                rate: options.linkRate?.bytes ?? (quick ? 32 << 20 : 64 << 20),
                delay: .milliseconds(options.linkDelay), loss: options.linkLoss),
            upstreamBytesPerSecond: options.upstreamRate?.bytes ?? (quick ? 16 << 20 : 32 << 20),
            upstreamDelay: .milliseconds(options.upstreamDelay), storeBytes: max(256 << 20, imageBytes * 3))
    }

    /// One program in one scenario, over all rounds.
    private struct Result {
        var pulls: [Cluster.Pull] = []
        var slowest: [Double] = []
        var copies: [Double] = []
        var manifestGets: [Double] = []
        var betweenNodes: [Double] = []
        var hottest: [Double] = []
        /// What cold starts left behind at nodes, in words.
        var leftovers: [String] = []
        var failures: [String] { pulls.compactMap(\.failure) }
        var firstFailures: [String] { pulls.compactMap(\.firstFailure) }
    }

    func measure(_ report: inout SuiteReport) async throws {
        let cluster = try await Cluster.start(settings)
        report.notes += describe() + cluster.network.notes
        var programs = [("spegel", context.program)]
        if let other = context.against { programs.append((other.name, other.program)) }
        let chosen = context.cluster.scenario.isEmpty ? Scenario.allCases : context.cluster.scenario
        var results: [String: Result] = [:]
        var number = 0
        for round in 0..<context.cluster.clusterRounds {
            for scenario in chosen {
                for contender in contenders(scenario, programs, round) {
                    number += 1
                    try await run(
                        scenario, contender, cluster, number,
                        &results["\(contender.name) \(scenario.rawValue)", default: Result()])
                }
            }
        }
        try await cluster.close()
        report.sections = chosen.map { section($0, programs, results) }.filter { !$0.measurements.isEmpty }
        judge(results, &report)
    }

    private struct Contender {
        var name: String
        var options: @Sendable (Int) -> [String] = { _ in [] }
        var program: @Sendable (Int) -> String
    }

    private static let off = ["--cold-start", "off"]

    /// Who runs in a scenario; every second round in the other order.
    private func contenders(_ scenario: Scenario, _ programs: [(String, String)], _ round: Int) -> [Contender] {
        switch scenario {
        case .noMirror: return [Contender(name: "no mirror") { _ in "" }]
        case .mixed:
            guard programs.count == 2 else { return [] }
            let (own, other) = (programs[0].1, programs[1].1)
            return [Contender(name: "both") { $0 % 2 == 0 ? own : other }]
        case .coldStartMixed:
            return programs.prefix(1).map { name, program in
                Contender(name: name, options: { $0 % 2 == 0 ? [] : Self.off }) { _ in program }
            }
        default:
            var all = programs.map { program in Contender(name: program.0) { _ in program.1 } }
            if scenario == .coldStart, !context.quick, let (name, program) = programs.first {
                all.append(Contender(name: "\(name), off", options: { _ in Self.off }) { _ in program })
            }
            return round % 2 == 0 ? all : all.reversed()
        }
    }

    // MARK: Scenarios

    private func run(
        _ scenario: Scenario, _ contender: Contender, _ cluster: Cluster, _ number: Int, _ result: inout Result
    ) async throws {
        let tag = "v\(number)"
        let image = try ClusterImage(
            tag: tag, name: Cluster.name(tag: tag), bytes: imageBytes,
            seed: context.seed &* 1000 &+ UInt64(number), in: cluster.folder.path)
        defer { image.remove() }
        try cluster.push(image)
        if scenario != .noMirror {
            try await cluster.startDaemons(
                lying: scenario == .lyingRelay || scenario == .coldStartLie ? [0] : [], options: contender.options,
                contender.program)
        }
        let all = Array(0..<count)
        let holders: [Int] =
            switch scenario {
            case .join: Array(all.dropLast())
            case .restartHalf: Array(all.dropLast(max(1, count / 8)))
            case .sourceDies, .lyingRelay: [0]
            case .registryDown: Array(all.prefix(max(1, count / 2)))
            default: []
            }
        let others = all.filter { !holders.contains($0) }
        if !holders.isEmpty {
            try await cluster.give(image, to: holders)
            for node in others { try await cluster.waitUntilFound(image, by: node) }
        }
        let (before, sentBefore) = (cluster.upstream.counters, cluster.network.sentBytes())
        let pulls = try await pulls(scenario, contender, cluster, image, holders, others)
        let upstream = cluster.upstream.counters - before
        let sent = zip(cluster.network.sentBytes(), sentBefore).map { Double($0 - $1) / 1_048_576 }
        result.pulls += pulls
        result.slowest.append(pulls.map { $0.duration / .seconds(1) }.max() ?? 0)
        result.copies.append(Double(upstream.bodyBytes) / Double(image.bytes))
        result.manifestGets.append(Double(upstream.manifestGets))
        result.betweenNodes.append(sent.reduce(0, +))
        result.hottest.append(sent.max() ?? 0)
        if scenario.isColdStart, contender.name == "spegel" { result.leftovers += try await leftovers(cluster) }
        await cluster.stopDaemons()
        await cluster.forget(image)
    }

    private func pulls(
        _ scenario: Scenario, _ contender: Contender, _ cluster: Cluster, _ image: ClusterImage, _ holders: [Int],
        _ others: [Int]
    ) async throws -> [Cluster.Pull] {
        switch scenario {
        case .noMirror: return await cluster.pull(image, on: others, mirrored: false)
        case .coldStart, .coldStartMixed, .join: return await cluster.pull(image, on: others)
        case .coldStartJoin:
            return await withTaskGroup(of: Cluster.Pull.self) { group in
                for node in others {
                    group.addTask { await cluster.pull(image, on: node) }
                    try? await Task.sleep(for: .milliseconds(100))
                }
                return await group.reduce(into: []) { $0.append($1) }
            }
        case .coldStartLeaderDies, .coldStartContainerdDies, .coldStartNodeDies, .coldStartClientLeaves:
            async let pulls = cluster.pull(image, on: others)
            try await strike(scenario, contender, cluster, image)
            return await pulls
        case .coldStartSlow:
            cluster.upstream.set(.slowFirst)
            defer { cluster.upstream.set(.none) }
            return await cluster.pull(image, on: others)
        case .coldStartLie:
            cluster.setFault(.lie, of: 0)
            return await cluster.pull(image, on: others)
        case .rolling, .mixed:
            var pulls: [Cluster.Pull] = []
            let step = max(1, (count + 4) / 5)
            for first in stride(from: 0, to: count, by: step) {
                pulls += await cluster.pull(image, on: Array(first..<min(count, first + step)))
            }
            return pulls
        case .sourceDies:
            async let pulls = cluster.pull(image, on: others)
            try await wait(for: image.bytes / 2, of: image, on: others[0], cluster)
            try await cluster.stopDaemon(0, SIGKILL)
            return await pulls
        case .restartHalf:
            async let pulls = cluster.pull(image, on: others)
            try await wait(for: image.bytes / 4, of: image, on: others[0], cluster)
            try await withThrowingTaskGroup(of: Void.self) { group in
                // The first one is what the others join by.
                for node in holders where node % 2 == 1 {
                    group.addTask {
                        try await cluster.stopDaemon(node)
                        try await cluster.startDaemon(contender.program(node), node: node)
                    }
                }
                try await group.waitForAll()
            }
            return await pulls
        case .registryDown:
            cluster.upstream.set(.refuse)
            defer { cluster.upstream.set(.none) }
            return await cluster.pull(image, on: others)
        case .lyingRelay:
            cluster.setFault(.lie, of: 0)
            return await cluster.pull(image, on: others)
        }
    }

    /// Kills something at a random moment of a cold start, and starts it again.
    private func strike(
        _ scenario: Scenario, _ contender: Contender, _ cluster: Cluster, _ image: ClusterImage
    ) async throws {
        let part = Int.random(in: image.bytes / 20...image.bytes * 3 / 4)
        let end = ContinuousClock.now + .seconds(60)
        var progress: [Int] = []
        repeat {
            try await Task.sleep(for: .milliseconds(5))
            progress = (0..<count).map { cluster.receivedBytes(image, on: $0) }
        } while progress.max() ?? 0 < part && ContinuousClock.now < end
        // The one that fetches from the upstream is ahead of those that have it from there.
        let leader = progress.indices.max { progress[$0] < progress[$1] } ?? 0
        let other = (0..<count).filter { $0 != leader }.randomElement() ?? 0
        switch scenario {
        case .coldStartContainerdDies:
            try await cluster.stores[leader].stop(SIGKILL)
            try await cluster.stores[leader].start()
        case .coldStartClientLeaves:
            _ = cluster.killClient(of: other)
        default:
            let node = scenario == .coldStartLeaderDies ? leader : other
            try await cluster.stopDaemon(node, SIGKILL)
            try await cluster.startDaemon(contender.program(node), node: node)
        }
    }

    /// Nodes that still claim something when all have pulled.
    private func leftovers(_ cluster: Cluster) async throws -> [String] {
        var found: [String] = []
        for node in 0..<count {
            let name = "spegel_cold_start_contents"
            let end = ContinuousClock.now + .seconds(40)
            while let value = try? cluster.metric(name, of: node), value > 0 {
                guard ContinuousClock.now < end else {
                    found.append("node \(node) still claims \(Int(value)) contents")
                    break
                }
                try await Task.sleep(for: .milliseconds(100))
            }
        }
        return found
    }

    /// Waits until a node has so much of an image; a minute at most, as it may have it all already.
    private func wait(for bytes: Int, of image: ClusterImage, on node: Int, _ cluster: Cluster) async throws {
        let end = ContinuousClock.now + .seconds(60)
        while cluster.receivedBytes(image, on: node) < bytes, ContinuousClock.now < end {
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    // MARK: Report

    private func describe() -> [String] {
        let shape = settings.shape
        let delay = "\((shape.delay / .milliseconds(1)).text(0)) ms"
        return [
            "\(count) nodes, an image of \(ByteCount(bytes: imageBytes)); links of \(ByteCount(bytes: shape.rate ?? 0))/s "
                + "each way, delay \(delay), loss \(shape.loss.text(2)) %",
            "upstream: docker-registry, \(ByteCount(bytes: settings.upstreamBytesPerSecond))/s in all, "
                + "\((settings.upstreamDelay / .milliseconds(1)).text(0)) ms before each answer; one copy takes "
                + "\((Double(imageBytes) / Double(settings.upstreamBytesPerSecond)).text(1)) s",
            "each node pulls with ctr into a containerd of its own, which checks every digest; copies and manifest GETs are "
                + "those that the upstream sent; between nodes is all that nodes send, with headers and acknowledgements",
        ]
    }

    private func section(
        _ scenario: Scenario, _ programs: [(String, String)], _ results: [String: Result]
    ) -> Section {
        var section = Section(
            title: "\(scenario.rawValue): \(scenario.title)", unit: "s (slowest node)", higherIsBetter: false)
        for contender in contenders(scenario, programs, 0) {
            guard let result = results["\(contender.name) \(scenario.rawValue)"] else { continue }
            var latencies = Latencies()
            for pull in result.pulls { latencies.record(pull.duration) }
            var row = Measurement(name: contender.name, figure: Summary(result.slowest))
            row.values = [
                .init(name: "p50", value: latencies.milliseconds(50) / 1000, unit: "s", places: 2),
                .init(name: "p99", value: latencies.milliseconds(99) / 1000, unit: "s", places: 2),
                .init(name: "nodes", value: Double(result.pulls.count / max(1, result.slowest.count)), unit: ""),
                .init(name: "copies from upstream", value: result.copies.median, unit: "", places: 2),
                .init(name: "manifest GETs", value: result.manifestGets.median, unit: ""),
                .init(name: "between nodes", value: result.betweenNodes.median, unit: "MiB"),
                .init(name: "hottest node", value: result.hottest.median, unit: "MiB"),
                .init(name: "tried twice", value: Double(result.firstFailures.count), unit: ""),
                .init(name: "failed", value: Double(result.failures.count), unit: ""),
            ]
            section.measurements.append(row)
        }
        return section
    }

    private func judge(_ results: [String: Result], _ report: inout SuiteReport) {
        if let most = context.cluster.maxCopies {
            for scenario in Scenario.allCases where scenario.isColdStart && scenario != .coldStartMixed {
                guard let cold = results["spegel \(scenario.rawValue)"] else { continue }
                // The image has two: its index and its manifest.
                let copies = max(cold.copies.max() ?? 0, (cold.manifestGets.max() ?? 0) / 2)
                let limit = scenario == .coldStart || scenario == .coldStartJoin ? most : max(most, 3)
                report.budgets.append(
                    Budget(
                        scenario.rawValue, "<= \(limit.text(1)) copies from the upstream", measured: copies.text(2),
                        met: copies <= limit, always: true))
            }
            let leftovers = results.values.flatMap(\.leftovers)
            report.budgets.append(
                Budget(
                    "cold start", "no claim is left", measured: leftovers.isEmpty ? "none" : leftovers[0],
                    met: leftovers.isEmpty, always: true))
        }
        // Where both run, a failure may be the other's.
        func isOurs(_ key: String) -> Bool { key.hasPrefix("spegel") }
        var (failed, twice) = (0, 0)
        for (key, result) in results.sorted(by: { $0.key < $1.key }) {
            if isOurs(key) {
                failed += result.failures.count
                // What a lying source has sent is in the client's ingest already when the lie is found at its end.
                let mayFail = Scenario.allCases.contains { $0.needsSecondTry && key.hasSuffix(" \($0.rawValue)") }
                if !mayFail { twice += result.firstFailures.count }
            }
            // Each kind once; digests and names differ.
            for failure in Set((result.firstFailures + result.failures).map { String($0.suffix(60)) }) {
                report.notes.append("failed, \(key): … \(failure.replacingOccurrences(of: "\n", with: " "))")
            }
        }
        let total = results.filter { isOurs($0.key) }.values.map(\.pulls.count).reduce(0, +)
        report.budgets.append(
            Budget(
                "cluster", "no pull in the cluster fails", measured: "\(failed) of \(total) failed",
                met: failed == 0, always: true))
        report.budgets.append(
            Budget(
                "cluster", "no pull needs a second try, but where a source lies or its client is killed",
                measured: "\(twice) of \(total)",
                met: twice == 0, always: true))
    }
}
