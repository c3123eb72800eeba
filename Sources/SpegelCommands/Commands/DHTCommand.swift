import ArgumentParser
import Logging
import MirrorServer
import OCIDistribution
import PeerRouting

/// `spegel dht`: what an operator can ask a node and its cluster.
struct DHTCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dht",
        abstract: "Shows a node's identity, and asks the cluster's DHT: who is there, and who has what.",
        discussion: """
            Without --dht-nodes and --bootstrap-kind the node on this machine is asked. The asker leaves no trace: no \
            node takes it into its table, and it announces nothing.
            """,
        subcommands: [IDCommand.self, PeersCommand.self, FindCommand.self, PingCommand.self]
    )

    @OptionGroup var global: GlobalOptions
    @OptionGroup var options: DHTOptions

    /// `spegel dht id`
    struct IDCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "id",
            abstract: "Prints a node's peer ID: the one kept in --data-dir, else that of the daemon at --metrics-addr.")

        @OptionGroup var global: GlobalOptions
        @OptionGroup var options: DHTOptions

        func run() async throws {
            let id =
                options.dataDir.isEmpty
                ? try await NodeMetadata.peerID(at: options.metricsAddr, timeout: options.dhtTimeout)
                : try storedID()
            options.report(DHTReport.id(id))
        }

        private func storedID() throws -> PeerID {
            if options.create { return try NodeIdentity.loadOrCreate(inDirectory: options.dataDir).peerID }
            guard let identity = try NodeIdentity.load(fromDirectory: options.dataDir) else {
                throw CommandFailure(
                    "\(options.dataDir) holds no identity yet: a daemon makes one at its first start with '--data-dir', "
                        + "and this command with '--create'")
            }
            return identity.peerID
        }
    }

    /// `spegel dht peers`
    struct PeersCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "peers", abstract: "Lists the nodes of the cluster, found by asking each for its neighbours.")

        @OptionGroup var global: GlobalOptions
        @OptionGroup var options: DHTOptions

        func run() async throws {
            let peers = try await options.client(global).joined { await $0.walk() }
            options.report(DHTReport.peers(peers))
        }
    }

    /// `spegel dht find KEY`
    struct FindCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "find", abstract: "Lists the nodes that announce a key; exit status 1 when there are none.")

        @OptionGroup var global: GlobalOptions
        @OptionGroup var options: DHTOptions

        @Argument(
            help: "A digest such as sha256:…, or an image such as docker.io/library/nginx:1.27 or nginx.",
            transform: DHTKey.parse)
        var key: String

        func run() async throws {
            let key = self.key
            let providers = try await options.client(global).joined { router in
                var found: [Peer] = []
                for await peer in router.providers(for: key, limit: 0) { found.append(peer) }
                return found
            }
            options.report(DHTReport.providers(providers, of: key))
            guard !providers.isEmpty else { throw CommandFailure("no node announces \(key)") }
        }
    }

    /// `spegel dht ping ADDR`
    struct PingCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "ping", abstract: "Connects to a node and tells who it is, what it speaks and how far it is.")

        @OptionGroup var global: GlobalOptions
        @OptionGroup var options: DHTOptions

        @Argument(help: "[HOST]:PORT, or a multiaddress with or without the node's ID.", transform: NodeAddress.parse)
        var address: NodeAddress

        func run() async throws {
            options.report(DHTReport.pong(try await options.client(global).ping(address), from: address))
        }
    }
}

/// Reads keys of the DHT.
enum DHTKey {
    /// The transform of the argument: a digest is its own key; the name of an image is completed as `pull` does it, and names its
    /// digest if it has one.
    @Sendable static func parse(_ text: String) throws -> String {
        if let digest = Digest(text) { return digest.description }
        do {
            let reference = try ImageName.parse(text)
            if let digest = reference.digest { return digest.description }
            return reference.description
        } catch {
            throw OptionError("a digest such as sha256:…, or an image such as docker.io/library/nginx:1.27")
        }
    }
}

/// The options of all subcommands of `dht`.
struct DHTOptions: ParsableArguments {
    @Option(
        help: "Nodes to ask first, as [HOST]:PORT or multiaddresses with or without IDs.", transform: NodeAddress.parse)
    var dhtNodes: [NodeAddress] = []

    @OptionGroup var bootstrap: BootstrapOptions

    @Option(
        help: "Where the node on this machine, and the port where all nodes, can be asked.",
        transform: ListenAddressOption.parse)
    var routerAddr = ListenAddress(host: nil, port: 5001)

    @Option(help: "Address of the daemon's metrics, for 'id'.", transform: ListenAddressOption.parse)
    var metricsAddr = ListenAddress(host: nil, port: 9090)

    @Option(help: "Directory that keeps a node's identity, for 'id'.")
    var dataDir = ""

    @Option(help: "Whether 'id' makes an identity in --data-dir when there is none.", transform: ScalarOption.boolean)
    var create = false

    @Option(help: "How long to wait for an answer from the cluster.", transform: DurationOption.positive)
    var dhtTimeout: Duration = .seconds(10)

    @Option(help: "text or json.", transform: VersionCommand.Format.parse)
    var format: VersionCommand.Format = .text

    func validate() throws {
        guard !create || !dataDir.isEmpty else {
            throw ValidationError("'--create' needs '--data-dir', the directory to keep the identity in.")
        }
        guard dhtNodes.isEmpty || bootstrap.bootstrapKind == nil else {
            throw ValidationError("'--dht-nodes' and '--bootstrap-kind' both say where to begin; give one of them.")
        }
    }

    func client(_ global: GlobalOptions) throws -> DHTClient {
        let nodes = dhtNodes.isEmpty ? [NodeAddress(routerAddr)] : dhtNodes
        return DHTClient(
            source: try bootstrap.source() ?? NodeList(nodes: nodes), clusterPort: routerAddr.port,
            isLocal: bootstrap.bootstrapKind == nil && nodes.allSatisfy(\.isLoopback), timeout: dhtTimeout,
            logger: .quiet(global.logLevel))
    }

    func report(_ report: DHTReport) {
        switch format {
        case .text: for line in report.lines { print(line) }
        case .json: print(report.json)
        }
    }
}
