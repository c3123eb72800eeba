import ArgumentParser
import Logging
import MirrorServer
import NodeConfiguration
import OCIDistribution
import PeerRouting

/// `spegel registry`: the daemon.
struct RegistryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "registry",
        abstract: "Runs the daemon: serves what the store holds, and what peers hold."
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "What to serve: containerd, or the path of an OCI image layout.", transform: StoreChoice.parse)
    var store: StoreChoice = .containerd

    @Option(help: "Address of the registry.", transform: ListenAddressOption.parse)
    var registryAddr = ListenAddress(host: nil, port: 5000)

    @Option(help: "Address of metrics and the debug page.", transform: ListenAddressOption.parse)
    var metricsAddr = ListenAddress(host: nil, port: 9090)

    @Option(help: "Address of the peer-to-peer router.", transform: ListenAddressOption.parse)
    var routerAddr = ListenAddress(host: nil, port: 5001)

    @Option(
        help: "Registry that is meant when a request names none, as stock clients do.", transform: ScalarOption.text)
    var defaultRegistry: String?

    @OptionGroup var bootstrap: BootstrapOptions

    @Option(help: "Address to serve this node's own bootstrap record on.", transform: ListenAddressOption.parse)
    var httpBootstrapAddr: ListenAddress?

    @Option(help: "containerd's socket.", transform: ScalarOption.text)
    var containerdSock = "/run/containerd/containerd.sock"

    @Option(help: "containerd's namespace.", transform: ScalarOption.text)
    var containerdNamespace = "k8s.io"

    @Option(help: "Directory of containerd's content store.", transform: ScalarOption.text)
    var containerdContentPath = "/var/lib/containerd/io.containerd.content.v1.content"

    @Option(help: "Directory that keeps this node's identity; without it a new one is made at each start.")
    var dataDir = ""

    @Option(
        help: "Registries to mirror, as http(s)://host[:port]; none or _default for all.", transform: RegistryURL.parse)
    var mirroredRegistries: [RegistryURL] = []

    @Option(
        help: """
            Regular expressions of references that are neither served nor advertised. No access control: a digest that is known \
            is served under any name that is allowed.
            """, transform: ScalarOption.text)
    var registryFilters: [String] = []

    @Option(help: "How long a lookup may take to find a first peer.", transform: DurationOption.positive)
    var mirrorResolveTimeout: Duration = .milliseconds(20)

    @Option(help: "How many peers are tried for one request.", transform: ScalarOption.integer(1...1000))
    var mirrorResolveRetries = 3

    @Option(
        help: "Networks of peers, as address/length; without it, those that follow from this node's addresses.",
        transform: NetworkOption.parse)
    var peerNetworks: [IPNetwork] = []

    @Option(
        help: "Whether peers are asked what a tag stands for; if not, clients ask the registry.",
        transform: ScalarOption.boolean)
    var resolveTags = true

    @OptionGroup var coldStart: ColdStartOptions

    @Option(help: "Whether the debug page is served.", transform: ScalarOption.boolean)
    var debugWebEnabled = true

    @Option(help: "How long running transfers may go on after a signal to stop.", transform: DurationOption.positive)
    var shutdownGracePeriod: Duration = .seconds(25)

    func validate() throws {
        // Fields are compared by value, so a port of 0 is never a clash.
        if registryAddr.port != 0, registryAddr == metricsAddr {
            throw ValidationError("'--registry-addr' and '--metrics-addr' are both \(registryAddr); they must differ.")
        }
        do {
            _ = try ReferenceFilter(
                mirroredRegistries: mirroredRegistries.map(\.description), patterns: registryFilters)
        } catch {
            throw ValidationError("'--registry-filters' or '--mirrored-registries': \(error)")
        }
        if let defaultRegistry, (try? Reference(registry: defaultRegistry, repository: "name")) == nil {
            throw ValidationError(
                "The value '\(defaultRegistry)' is invalid for '--default-registry': expected a host such as docker.io "
                    + "or registry.example:5000.")
        }
    }

    func run() async throws {
        let control = LogControl(level: global.logLevel)
        let logger = Logger.daemon(control, format: global.logFormat)
        do {
            let daemon = RegistryDaemon(
                configuration: try daemonConfiguration(), logControl: control, logger: logger,
                libraryLogger: .daemon(control, lowest: .info, format: global.logFormat))
            try await daemon.run()
        } catch let failure as StartFailure {
            var metadata: Logger.Metadata = ["error": "\(failure.reason)"]
            metadata["hint"] = failure.hint.map { "\($0)" }
            logger.error("cannot start", metadata: metadata)
            throw ExitCode.failure
        } catch {
            logger.error("stopped by an error", metadata: ["error": "\(error)"])
            throw ExitCode.failure
        }
    }

    private func daemonConfiguration() throws -> RegistryDaemon.Configuration {
        var containerd = ContainerdOptions()
        containerd.socket = containerdSock
        containerd.namespace = containerdNamespace
        containerd.contentPath = containerdContentPath
        return RegistryDaemon.Configuration(
            store: store, containerd: containerd, registryAddress: registryAddr, metricsAddress: metricsAddr,
            peers: try peerOptions(), debugWebEnabled: debugWebEnabled, defaultRegistry: defaultRegistry,
            filter: try ReferenceFilter(
                mirroredRegistries: mirroredRegistries.map(\.description), patterns: registryFilters),
            credentials: try BasicCredentials.load(), shutdownGracePeriod: shutdownGracePeriod)
    }

    private func peerOptions() throws -> PeerOptions? {
        guard let source = try bootstrap.source() else { return nil }
        return PeerOptions(
            routerAddress: routerAddr, bootstrap: source, identityServerAddress: httpBootstrapAddr,
            certificateDirectory: bootstrap.httpBootstrapCertDir, dataDirectory: dataDir,
            resolveTimeout: mirrorResolveTimeout,
            resolveRetries: mirrorResolveRetries, networks: peerNetworks, resolvesTags: resolveTags,
            coldStart: coldStart.configuration, claims: coldStart.limits)
    }
}
