import ArgumentParser

/// The cluster suite's settings. What is not given depends on whether the run is a short one.
struct ClusterOptions: ParsableArguments, Sendable {
    @Option(help: "Nodes; 16, or 4 in a short run.") var nodes: Int?
    @Option(help: "The image that is rolled out; 64MiB, or 16MiB in a short run.") var imageSize: ByteCount?
    @Option(help: ArgumentHelp("The upstream's bytes per second, for all nodes together.", valueName: "bytes"))
    var upstreamRate: ByteCount?
    @Option(help: ArgumentHelp("How long the upstream takes before each answer.", valueName: "ms"))
    var upstreamDelay = 20
    @Option(help: ArgumentHelp("Bytes per second of each node's link, in each direction.", valueName: "bytes"))
    var linkRate: ByteCount?
    @Option(help: ArgumentHelp("Delay of what a node sends; needs a kernel with netem.", valueName: "ms"))
    var linkDelay = 1
    @Option(help: ArgumentHelp("Loss of what a node sends.", valueName: "percent")) var linkLoss = 0.0
    @Option(
        parsing: .upToNextOption,
        help: "Scenarios: \(Scenario.allCases.map(\.rawValue).joined(separator: ", ")); all by default.")
    var scenario: [Scenario] = []
    @Option(help: "Times that the scenarios are run.") var clusterRounds = 1
    @Option(
        help: ArgumentHelp(
            "cold-start: copies, by bytes and by manifest GETs, above which the run fails, such as 1.2; with faults 3.",
            valueName: "copies")) var maxCopies: Double?

    mutating func validate() throws {
        guard (2...1000).contains(nodes ?? 2), upstreamDelay >= 0, linkDelay >= 0, (0..<100).contains(linkLoss),
            clusterRounds > 0, maxCopies ?? 1 >= 1
        else {
            throw ValidationError(
                "a cluster has 2 to 1000 nodes, delays are not negative, and loss is below 100 percent")
        }
    }
}

/// What happens in a cluster.
enum Scenario: String, CaseIterable, ExpressibleByArgument, Sendable {
    case noMirror = "no-mirror"
    case coldStart = "cold-start"
    case coldStartJoin = "cold-start-join"
    case coldStartMixed = "cold-start-mixed"
    case coldStartLeaderDies = "cold-start-leader-dies"
    case coldStartContainerdDies = "cold-start-containerd-dies"
    case coldStartNodeDies = "cold-start-node-dies"
    case coldStartClientLeaves = "cold-start-client-leaves"
    case coldStartSlow = "cold-start-slow"
    case coldStartLie = "cold-start-lie"
    case rolling
    case join
    case sourceDies = "source-dies"
    case restartHalf = "restart-half"
    case registryDown = "registry-down"
    case lyingRelay = "lying-relay"
    case mixed

    var title: String {
        switch self {
        case .noMirror: "all nodes at once, without a mirror"
        case .coldStart: "all nodes at once, no node has it"
        case .coldStartJoin: "one node after the other begins, no node has it"
        case .coldStartMixed: "all nodes at once, every second one takes no part in cold starts"
        case .coldStartLeaderDies: "the daemon of the node that fetches from the upstream is killed"
        case .coldStartContainerdDies: "the containerd of the node that fetches from the upstream is killed"
        case .coldStartNodeDies: "the daemon of another node is killed, perhaps the arbiter"
        case .coldStartClientLeaves: "a client is killed and pulls again"
        case .coldStartSlow: "the upstream gives the first node an eighth of its rate"
        case .coldStartLie: "one node relays wrong bytes"
        case .rolling: "a fifth of the nodes after the other"
        case .join: "the last node, all others have it"
        case .sourceDies: "the only source is killed half-way"
        case .restartHalf: "half of the daemons restart meanwhile"
        case .registryDown: "half of the nodes have it, the upstream is down"
        case .lyingRelay: "the only source sends wrong bytes"
        case .mixed: "a fifth after the other, every second node runs --against"
        }
    }

    /// Whether all nodes begin without the image and share the upstream's copy.
    var isColdStart: Bool { rawValue.hasPrefix("cold-start") }

    /// Whether a pull may fail at first: its own client or containerd is killed, or what it got was wrong at its end.
    var needsSecondTry: Bool {
        switch self {
        case .lyingRelay, .coldStartLie, .coldStartClientLeaves, .coldStartContainerdDies: true
        default: false
        }
    }
}
