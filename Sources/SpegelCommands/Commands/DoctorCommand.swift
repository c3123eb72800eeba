import ArgumentParser
import Foundation
import Logging
import MirrorServer
import NodeConfiguration
import PeerRouting

/// `spegel doctor`: checks what keeps a node from mirroring, and says what to do about it.
struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Checks this node and says what keeps it from mirroring, and the fix.",
        discussion: """
            Give it the options of the daemon on this node. Exits with 0 when nothing has to be done, 1 when mirroring does not \
            work, 2 for a warning or when something could not be found out.
            """
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "The daemon's store: containerd, or the path of an OCI image layout.", transform: StoreChoice.parse)
    var store: StoreChoice = .containerd

    @Option(help: "containerd's socket.", transform: ScalarOption.text)
    var containerdSock = "/run/containerd/containerd.sock"

    @Option(help: "Namespace of the images.", transform: ScalarOption.text)
    var containerdNamespace = "k8s.io"

    @Option(help: "Directory of containerd's content store.", transform: ScalarOption.text)
    var containerdContentPath = ContainerdOptions.defaultContentPath

    @Option(help: "containerd's main configuration file.", transform: ScalarOption.text)
    var containerdConfigFile = "/etc/containerd/config.toml"

    @Option(help: "Directory of containerd's registry configuration.", transform: ScalarOption.text)
    var containerdRegistryConfigPath = "/etc/containerd/certs.d"

    @Option(help: "Registries that are mirrored; none or _default for all.", transform: RegistryURL.parse)
    var mirroredRegistries: [RegistryURL] = []

    @Option(help: "Address of the daemon's registry.", transform: ListenAddressOption.parse)
    var registryAddr = ListenAddress(host: nil, port: 5000)

    @Option(help: "Address of the daemon's metrics.", transform: ListenAddressOption.parse)
    var metricsAddr = ListenAddress(host: nil, port: 9090)

    @Option(help: "Address of the daemon's router.", transform: ListenAddressOption.parse)
    var routerAddr = ListenAddress(host: nil, port: 5001)

    @Option(help: "Name whose addresses are the first peers.", transform: ScalarOption.text)
    var dnsBootstrapDomain: String?

    @Option(help: "Directory that keeps the node's identity.")
    var dataDir = ""

    @Option(help: "text or json.", transform: VersionCommand.Format.parse)
    var format: VersionCommand.Format = .text

    @Option(
        help: "Whether to wait for the next pull instead, and say what came of its requests.",
        transform: ScalarOption.boolean)
    var watch = false

    func run() async throws {
        if watch { return try await PullWatch(probe: try probe()).run() }
        let report = try await examine()
        switch format {
        case .json: print(try report.json())
        case .text: DoctorText(report: report, terminal: .standardOutput).write()
        }
        if report.exitStatus != 0 { throw ExitCode(report.exitStatus) }
    }

    private func probe() throws -> PeerProbe {
        var probe = PeerProbe(
            metricsAddress: metricsAddr, registryAddress: registryAddr, routerAddress: routerAddr,
            credentials: try credentials())
        if let registry = mirroredRegistries.first(where: { $0 != .wildcard }) { probe.registry = registry.host }
        return probe
    }

    private func credentials() throws -> BasicCredentials? {
        do { return try BasicCredentials.load() } catch let failure as StartFailure {
            throw CommandFailure("\(failure)")
        }
    }

    /// What containerd and this node's files say.
    private func nodeEvidence(_ start: DoctorEvidence) async -> DoctorEvidence {
        var evidence = start
        if evidence.usesContainerd {
            await ContainerdProbe.examine(&evidence)
            // The default path is left to containerd, which knows where it really is.
            evidence.contentPath =
                containerdContentPath == ContainerdOptions.defaultContentPath
                ? evidence.contentRoot ?? containerdContentPath : containerdContentPath
            evidence.contentAccess = NodeFiles.access(evidence.contentPath)
            evidence.ingestAccess = NodeFiles.access(evidence.contentPath + "/ingest")
        }
        NodeFiles.examine(&evidence)
        return evidence
    }

    /// The time for resolving the bootstrap name; the system's resolver tries longer.
    private static let resolverTimeout: Duration = .seconds(3)

    private func bootstrapAddresses() async -> Result<[String], DoctorProbeError>? {
        guard let name = dnsBootstrapDomain else { return nil }
        let answer = await BoundedWait.answer(within: Self.resolverTimeout) {
            do {
                return Result<[String], DoctorProbeError>.success(
                    try await NameResolver.addresses(of: name).map { "\($0)" })
            } catch {
                return .failure(DoctorProbeError("\(error)"))
            }
        }
        return answer ?? .failure(DoctorProbeError("no answer within \(Self.resolverTimeout)"))
    }

    private func examine() async throws -> DoctorReport {
        var evidence = DoctorEvidence()
        evidence.usesContainerd = store == .containerd
        evidence.containerdSocketPath = containerdSock
        evidence.namespace = containerdNamespace
        evidence.configurationFile = containerdConfigFile
        evidence.registryDirectory = containerdRegistryConfigPath
        evidence.registries = mirroredRegistries.filter { $0 != .wildcard }
        evidence.authorization = try credentials()?.authorization
        evidence.dataDirectory = dataDir
        evidence.hosts = NodeFiles.hosts(in: containerdRegistryConfigPath)
        // Three things that may each take as long as something does not answer.
        let start = evidence
        async let node = nodeEvidence(start)
        async let addresses = bootstrapAddresses()
        await (try probe()).examine(&evidence, logger: .quiet(global.logLevel))
        let openFiles = evidence.openFiles
        evidence.merge(containerdAndFiles: await node)
        // The daemon's own limit counts where it is known.
        if let openFiles { evidence.openFiles = openFiles }
        evidence.bootstrapName = dnsBootstrapDomain
        evidence.bootstrapAddresses = await addresses
        return DoctorReport(evidence)
    }
}

/// Prints a report for a person.
struct DoctorText {
    var report: DoctorReport
    var terminal: Terminal

    func write() {
        let titles = Dictionary(uniqueKeysWithValues: Doctor.checks.map { ($0.id, $0.title) })
        for finding in report.findings {
            let mark =
                switch finding.result {
                case .ok: terminal.green("ok     ")
                case .skipped: "skipped"
                case .unknown: terminal.bold("unknown")
                case .warning: terminal.bold("warning")
                case .failure: terminal.red("FAILURE")
                }
            terminal.line("\(mark)  \(titles[finding.check] ?? finding.check) (\(finding.check))")
            terminal.line("         \(finding.evidence)")
            if let fix = finding.fix, finding.result != .ok { terminal.line("         fix: \(fix)") }
        }
        let bad = report.findings.count { $0.result == .failure }
        let open = report.findings.count { $0.result == .warning || $0.result == .unknown }
        terminal.line()
        terminal.line(
            bad == 0 && open == 0
                ? terminal.green("all \(report.findings.count) checks are well")
                : "\(bad) failures, \(open) warnings or unknown, \(report.findings.count) checks")
    }
}

/// Waits until a pull reaches the mirror, and says what came of its requests.
struct PullWatch {
    var probe: PeerProbe
    var terminal = Terminal.standardOutput
    private static let interval: Duration = .milliseconds(200)
    /// A pull is over when no request has come for so long.
    private static let quiet: Duration = .seconds(3)

    func run() async throws {
        let before: Set<UInt64>
        let hitsBefore: Int
        do {
            before = Set(try await probe.requests().map(\.number))
            hitsBefore = try await probe.status().mirror?.hits ?? 0
        } catch {
            throw CommandFailure(
                "the daemon does not tell its requests (\(PeerProbe.words(error))); give its --metrics-addr")
        }
        terminal.line(
            "Waiting for requests; pull an image on this node now, for example: crictl pull IMAGE. Ctrl-C ends.")
        var seen = before
        var last: ContinuousClock.Instant?
        var outcomes: [String: Int] = [:]
        while last.map({ ContinuousClock.now - $0 < Self.quiet }) ?? true {
            for request in try await probe.requests() where seen.insert(request.number).inserted {
                terminal.line("  \(request.client ?? "?")  \(request.method) \(request.target)  \(request.outcomeText)")
                outcomes[request.outcome, default: 0] += 1
                last = ContinuousClock.now
            }
            try await Task.sleep(for: Self.interval)
        }
        let summary = outcomes.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        let hits = (try await probe.status().mirror?.hits ?? 0) - hitsBefore
        terminal.line("containerd asks this mirror: \(summary); \(hits) of them from peers")
    }
}
