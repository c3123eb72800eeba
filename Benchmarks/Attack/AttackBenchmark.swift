import ContentStoreConformance
import Foundation
import OCIDistribution
import TestSupport

/// Honest nodes that fetch each other's content while hostile machines are in the cluster: what they find, and how fast.
///
/// All have addresses of their own, as what limits a source does not count loopback. The hostile machines join first, so that
/// they announce first; the honest ones know nothing of each other's content by then.
struct AttackBenchmark {
    private let context: BenchmarkContext
    private let honest: Int
    private let hostile: Int
    private let settling: Duration

    init(_ context: BenchmarkContext) {
        self.context = context
        (honest, hostile) = context.quick ? (4, 2) : (10, 3)
        settling = .seconds(context.quick ? 4 : 10)
    }

    func measure(_ report: inout SuiteReport) async throws {
        let network = try await ClusterNetwork.make(
            nodes: honest + hostile, shape: LinkShape(rate: nil, delay: .zero, loss: 0))
        let folder = try TemporaryDirectory(inMemory: true)
        let content = try HonestContent(owners: 1..<honest, seed: context.seed, in: folder)
        report.notes += [
            "\(honest) honest nodes in namespaces of their own; one of them has nothing, each other an image of "
                + "\(content.images[0].bytes >> 10) KiB; \(hostile) hostile machines, which join and announce first",
            "one honest node after the other asks for every tag and manifest of the others, then for every blob, once, "
                + "\(Self.clients) at a time, and compares each byte",
        ]
        var programs = [("spegel", context.program)]
        if let other = context.against { programs.append((other.name, other.program)) }
        var section = Section(
            title: "while hostile machines attack", unit: "ms (p99)", higherIsBetter: false)
        for attack in context.attacks.isEmpty ? defaultAttacks : context.attacks {
            report.notes.append("\(attack.rawValue): \(attack.title)")
            for (name, program) in programs {
                let tally = try await run(attack, program, network, content)
                section.measurements.append(tally.measurement(name, attack))
                if name == "spegel" { judge(attack, tally, &report) }
            }
            print("\(attack.rawValue): done")
            fflush(nil)
        }
        report.sections.append(section)
        try await network.remove()
    }

    /// A short run has those that once hid content.
    private var defaultAttacks: [Attack] {
        context.quick ? [.none, .identities, .absent, .impostor, .liar] : Attack.allCases
    }

    private func judge(_ attack: Attack, _ tally: Tally, _ report: inout SuiteReport) {
        let missing = tally.asked - tally.right - (attack.mayWinTags ? tally.otherTags : 0)
        report.budgets.append(
            Budget(
                "attack: \(attack.rawValue)",
                attack.mayWinTags ? "all content by digest found, none wrong" : "all content found, none wrong",
                measured: "\(missing) of \(tally.asked) missing or wrong", met: missing == 0, always: true))
        // What sends slowly holds a request until it is replaced.
        guard attack == .identities || attack == .none else { return }
        let p99 = tally.latencies.milliseconds(99)
        report.budgets.append(
            Budget("attack: \(attack.rawValue)", "p99 <= 200 ms", measured: "\(p99.text(1)) ms", met: p99 <= 200))
    }

    // MARK: One attack

    private func run(
        _ attack: Attack, _ program: String, _ network: ClusterNetwork, _ content: HonestContent
    ) async throws -> Tally {
        var processes: [ChildProcess] = []
        do {
            processes.append(try await startNode(0, program, content.empty, network))
            try await wait(for: 0, processes[0])
            if attack != .none {
                for number in 0..<hostile {
                    processes.append(try await startHostile(number, attack, content, network))
                }
                for machine in processes.dropFirst() {
                    _ = try await machine.until("the attack") { machine.output.contains("attacking") ? true : nil }
                }
            }
            for (number, image) in zip(1..., content.images) {
                let node = try await startNode(number, program, image.directory, network)
                processes.append(node)
                try await wait(for: number, node)
            }
            try await Task.sleep(for: settling)
            let tally = await ask(content)
            await end(processes)
            return tally
        } catch {
            await end(processes)
            throw error
        }
    }

    private func startNode(
        _ number: Int, _ program: String, _ store: String, _ network: ClusterNetwork
    ) async throws -> ChildProcess {
        let address = ClusterNetwork.address(number)
        return try await ChildProcess.start(
            network.wrapper(number) + [
                program, "registry", "--store", store, "--registry-addr", "\(address):5000", "--router-addr",
                "\(address):5001", "--metrics-addr", "\(address):9090", "--bootstrap-kind", "http",
                "--http-bootstrap-addr", "\(address):5002", "--http-bootstrap-url",
                "http://\(ClusterNetwork.address(0)):5002/id",
                // A debug build on a busy machine takes longer than the usual 20 ms for a lookup.
                "--mirror-resolve-timeout", Machine.isDebugBuild ? "10s" : "20ms",
            ])
    }

    private func startHostile(
        _ number: Int, _ attack: Attack, _ content: HonestContent, _ network: ClusterNetwork
    ) async throws -> ChildProcess {
        let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path
        return try await ChildProcess.start(
            network.wrapper(honest + number) + [
                own, "hostile-peer", "--attack", attack.rawValue, "--address", ClusterNetwork.address(honest + number),
                "--identities", "\(attack.identities(quick: context.quick))", "--keys", content.keyFile, "--content",
                content.directory,
            ] + (0..<honest).map(ClusterNetwork.address), input: .pipe)
    }

    /// Until it answers, and is ready if that comes in time: what keeps it from joining is what is measured.
    private func wait(for number: Int, _ process: ChildProcess) async throws {
        let end = ContinuousClock.now + .seconds(10)
        _ = try await process.until("node \(number)") { () -> Bool? in
            let response = try? RawResponse.get(
                host: ClusterNetwork.address(number), port: 5000, path: "/readyz", limit: 4096)
            guard let response else { return nil }
            return response.status == 200 || number == 0 || ContinuousClock.now > end ? true : nil
        }
    }

    private func end(_ processes: [ChildProcess]) async {
        for process in processes {
            process.send(SIGKILL)
            _ = try? await process.wait()
        }
    }

    // MARK: Honest traffic

    /// Requests of one node at once.
    private static let clients = 2

    /// One node after the other asks for everything of the others: all at once, the machine would be measured.
    private func ask(_ content: HonestContent) async -> Tally {
        var tally = Tally()
        for asker in 0..<honest {
            // As every client does: what the manifests name comes after them.
            let (manifests, blobs) = content.wanted(by: asker)
            tally += await Self.ask(manifests, asker)
            tally += await Self.ask(blobs, asker)
        }
        return tally
    }

    /// Some clients side by side.
    private static func ask(_ wanted: [HonestContent.Wanted], _ asker: Int) async -> Tally {
        await withTaskGroup(of: Tally.self) { group in
            for client in 0..<clients {
                let share = stride(from: client, to: wanted.count, by: clients).map { wanted[$0] }
                group.addTask {
                    await withCheckedContinuation { continuation in
                        Thread.detachNewThread { continuation.resume(returning: ask(share, asker)) }
                    }
                }
            }
            return await group.reduce(into: Tally()) { $0 += $1 }
        }
    }

    private static func ask(_ wanted: [HonestContent.Wanted], _ asker: Int) -> Tally {
        var tally = Tally()
        for wanted in wanted {
            let begin = ContinuousClock.now
            let response = try? RawResponse.get(
                host: ClusterNetwork.address(asker), port: 5000,
                path: "/v2/\(ClusterImage.repository)/\(wanted.path)?ns=docker.io", limit: 64 << 20)
            let expected = FileManager.default.contents(atPath: wanted.file)
            tally.record(response, expected, isTag: wanted.isTag, after: begin.duration(to: .now))
        }
        return tally
    }
}

/// An image for each honest node but the first.
private struct HonestContent: Sendable {
    let images: [ClusterImage]
    /// The directory of their layouts, and a layout without images.
    let directory: String
    let empty: String
    /// What is going to be announced, one a line.
    let keyFile: String

    init(owners: Range<Int>, seed: UInt64, in folder: TemporaryDirectory) throws {
        directory = folder.path("content")
        images = try owners.map { owner in
            let tag = "own\(owner)"
            return try ClusterImage(
                tag: tag, name: "docker.io/\(ClusterImage.repository):\(tag)", bytes: 1 << 20,
                seed: seed &* 100 &+ UInt64(owner), in: folder.path("content"))
        }
        empty = folder.path("empty")
        keyFile = folder.path("keys")
        try FileManager.default.createDirectory(atPath: "\(empty)/blobs/sha256", withIntermediateDirectories: true)
        try folder.write(#"{"imageLayoutVersion":"1.0.0"}"#, to: "empty/oci-layout")
        try folder.write(#"{"schemaVersion":2,"manifests":[]}"#, to: "empty/index.json")
        let keys = images.flatMap { image in
            [image.index, image.manifest].map(\.description) + image.blobs.map(\.digest.description)
                + ["docker.io/\(ClusterImage.repository):\(image.tag)"]
        }
        try folder.write(keys.joined(separator: "\n"), to: "keys")
    }

    /// Something that a node asks for.
    struct Wanted: Sendable {
        /// Below the repository.
        var path: String
        var isTag: Bool
        /// Where its bytes are.
        var file: String
    }

    /// Everything that a node does not have itself.
    func wanted(by asker: Int) -> (manifests: [Wanted], blobs: [Wanted]) {
        func wanted(_ path: String, _ digest: Digest, of image: ClusterImage, isTag: Bool = false) -> Wanted {
            Wanted(path: path, isTag: isTag, file: "\(image.directory)/blobs/sha256/\(digest.hex)")
        }
        let others = zip(1..., images).filter { $0.0 != asker }.map(\.1)
        return (
            others.flatMap { image in
                [wanted("manifests/\(image.tag)", image.index, of: image, isTag: true)]
                    + [image.index, image.manifest].map { wanted("manifests/\($0)", $0, of: image) }
            },
            others.flatMap { image in
                image.blobs.map { wanted("blobs/\($0.digest)", $0.digest, of: image) }
            }
        )
    }
}

/// What became of the honest nodes' requests.
private struct Tally: Sendable {
    var asked = 0
    var right = 0
    var notFound = 0
    /// Complete, and not what was asked for.
    var wrong = 0
    /// Tags that stood for other content.
    var otherTags = 0
    private var durations: [Duration] = []

    var latencies: Latencies {
        var latencies = Latencies()
        for duration in durations { latencies.record(duration) }
        return latencies
    }

    mutating func record(_ response: RawResponse?, _ expected: Data?, isTag: Bool, after time: Duration) {
        asked += 1
        durations.append(time)
        guard let response, response.status == 200, response.body.count == response.length else {
            if response?.status == 404 { notFound += 1 }
            return
        }
        if let expected, response.body.elementsEqual(expected) {
            right += 1
        } else if isTag {
            otherTags += 1
        } else {
            wrong += 1
        }
    }

    static func += (sum: inout Tally, other: Tally) {
        sum.asked += other.asked
        sum.right += other.right
        sum.notFound += other.notFound
        sum.wrong += other.wrong
        sum.otherTags += other.otherTags
        sum.durations += other.durations
    }

    func measurement(_ name: String, _ attack: Attack) -> Measurement {
        let latencies = latencies
        var row = Measurement(name: name, group: attack.rawValue, figure: Summary([latencies.milliseconds(99)]))
        row.values = [
            .init(name: "p50", value: latencies.milliseconds(50), unit: "ms", places: 1),
            .init(name: "max", value: latencies.milliseconds(100), unit: "ms", places: 0),
            .init(name: "requests", value: Double(asked), unit: ""),
            .init(name: "found", value: 100 * Double(right) / Double(max(1, asked)), unit: "%", places: 1),
            .init(name: "404", value: Double(notFound), unit: ""),
            .init(name: "wrong", value: Double(wrong), unit: ""),
            .init(name: "other tags", value: Double(otherTags), unit: ""),
        ]
        return row
    }
}
