import Foundation

/// The suites, in the order in which an overview runs them.
enum Suite: String, CaseIterable {
    case hash, serve, mirror, startup, memory, containerd, dht, cluster, attack

    var title: String {
        switch self {
        case .hash: "SHA-256 of content, beside openssl"
        case .serve: "local blobs and manifests, beside nginx with sendfile"
        case .mirror: "content through a peer, beside a plain relay and pull-through caches"
        case .startup: "from the start of a daemon to its first answers"
        case .memory: "resident memory idle, under concurrent pulls, and with many connections"
        case .containerd: "the containerd store: start-up, and requests per second beside the store on disk"
        case .dht: "lookups in simulated clusters of a thousand nodes and more"
        case .cluster:
            "image roll-outs in a cluster of daemons and containerds, and what the upstream registry has to send"
        case .attack: "what honest nodes find while hostile machines are in the cluster"
        }
    }

    /// Whether it needs network namespaces or containerd.
    var needsRoot: Bool { ![.hash, .serve, .mirror, .dht].contains(self) }

    /// Installs what is missing.
    func installTools() throws {
        var tools = [("unshare", "util-linux"), ("ip", "iproute2")]
        switch self {
        case .hash: tools.append(("openssl", "openssl"))
        case .serve, .mirror, .startup, .memory:
            tools += [("wrk", "wrk"), ("nginx", "nginx-light"), ("containerd", "containerd")]
            if self == .mirror { tools.append(("docker-registry", "docker-registry")) }
        case .containerd: tools += [("wrk", "wrk"), ("containerd", "containerd")]
        case .dht: break
        case .cluster: tools += ClusterBenchmark.tools
        case .attack: tools += ClusterNetwork.tools
        }
        for (name, package) in tools { _ = try Tool.find(name, package: package) }
    }

    func measure(_ context: BenchmarkContext, _ lab: Lab, _ report: inout SuiteReport) async throws {
        switch self {
        case .hash: try HashBenchmark(context).measure(&report)
        case .serve: try await ServeBenchmark(context, lab).measure(&report)
        case .mirror: try await MirrorBenchmark(context, lab).measure(&report)
        case .startup: try await StartupBenchmark(context, lab).measure(&report)
        case .memory: try await MemoryBenchmark(context, lab).measure(&report)
        case .containerd: try await ContainerdBenchmark(context).measure(&report)
        case .dht: DHTBenchmark(context).measure(&report)
        case .cluster: try await ClusterBenchmark(context).measure(&report)
        case .attack: try await AttackBenchmark(context).measure(&report)
        }
    }
}

/// The program of `--against` or `--old`.
struct OtherProgram: Sendable {
    var program: String
    /// The option's name, which stands for it in tables.
    var name: String

    /// How many times as fast as this program ours has to be.
    ///
    /// - Parameter factor: where this is the Go original. Another build of ours may be faster by what is noise.
    func required(_ factor: Double) -> Double { name == "old" ? 0.9 : factor }

    /// A budget for the ratio of our figure to this program's, where more is better.
    func budget(_ subject: String, _ factor: Double, ratio: Double) -> Budget {
        Budget(
            subject, ">= \(required(factor).text(1)) x --\(name)", measured: "\(ratio.text(2)) x",
            met: ratio >= required(factor))
    }
}

/// The settings of a run, with the defaults of a short or a full one.
struct BenchmarkContext: Sendable {
    var quick: Bool
    var rounds: Int
    var blobSize: ByteCount
    var seconds: Int
    var connections: [Int]
    var workers: Int
    /// The number of images of the containerd suite.
    var images: Int
    var dhtNodes: [Int]
    var churn: Bool
    var seed: UInt64
    /// Our daemon.
    var program: String
    /// A program measured beside it.
    var against: OtherProgram?
    var cluster: ClusterOptions
    /// The attacks of the attack suite.
    var attacks: [Attack]

    init(_ options: Benchmarks, quick: Bool) throws {
        self.quick = quick
        rounds = options.rounds ?? (quick ? 3 : 5)
        blobSize = options.blobSize ?? ByteCount(bytes: quick ? 128 << 20 : 1 << 30)
        seconds = options.seconds ?? (quick ? 1 : 3)
        connections = options.connections.isEmpty ? (quick ? [1, 64] : [1, 16, 64]) : options.connections
        workers = options.workers ?? ProcessInfo.processInfo.activeProcessorCount
        images = options.images ?? (quick ? 100 : 1000)
        dhtNodes =
            options.dhtNodes.isEmpty
            ? (quick && Machine.isDebugBuild ? [10, 100] : [10, 100, 1000]) : options.dhtNodes
        churn = options.churn
        seed = options.seed
        program = try Self.daemon(options.spegel)
        against = (options.against ?? options.old).map { path in
            OtherProgram(
                program: URL(fileURLWithPath: path).standardizedFileURL.path,
                name: options.old == nil ? "against" : "old")
        }
        cluster = options.cluster
        attacks = options.attack
    }

    /// The daemon's program: it is built together with this one and lies beside it.
    static func daemon(_ path: String?) throws -> String {
        let program =
            path.map { URL(fileURLWithPath: $0).standardizedFileURL.path }
            ?? URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
            .appendingPathComponent("spegel").path
        guard FileManager.default.isExecutableFile(atPath: program) else {
            throw BenchmarkError("no program \(program); 'swift build --product spegel' makes it")
        }
        return program
    }

    /// Measures contenders in rounds. The order alternates, so that a drift of the machine favours none.
    ///
    /// - Returns: for each contender its samples in the order of the rounds.
    func interleaved<Contender, Sample>(
        _ contenders: [Contender], _ measure: (Contender) async throws -> Sample
    ) async throws -> [[Sample]] {
        var samples = contenders.map { _ in [Sample]() }
        for round in 0..<rounds {
            let order = round % 2 == 0 ? Array(contenders.indices) : contenders.indices.reversed()
            for index in order { samples[index].append(try await measure(contenders[index])) }
        }
        return samples
    }
}

/// What one round took.
struct Sample {
    var figure: Double
    /// Processor time for each unit of work.
    var cpu: Double
    /// The most that was resident at a time.
    var peakMiB: Double
    /// The fraction of requests without a 200.
    var failures = 0.0
}

extension [Sample] {
    func measurement(_ name: String, group: String = "", withFailures: Bool = false) -> Measurement {
        var result = Measurement(
            name: name, group: group, figure: Summary(map(\.figure)), cpu: Summary(map(\.cpu)),
            peakMiB: map(\.peakMiB).max())
        if withFailures {
            // The worst round: a failure in one of three is a failure.
            let worst = (map(\.failures).max() ?? 0) * 100
            result.values = [.init(name: "not 200", value: worst, unit: "%", places: 1)]
        }
        return result
    }
}
