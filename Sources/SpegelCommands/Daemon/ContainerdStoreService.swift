import ContainerdContentStore
import Logging
import MirrorServer
import NodeConfiguration
import ServiceLifecycle
import Synchronization

/// What the last checks of the node found to be wrong, for the debug page.
final class NodeFindings: Sendable {
    private let findings = Mutex<[MirrorNode.Status.Finding]>([])

    var current: [MirrorNode.Status.Finding] { findings.withLock { $0 } }

    /// Takes those of the findings that ask for something.
    func replace(by found: [DoctorFinding]) {
        let wrong = found.filter { $0.result >= .warning }.map {
            MirrorNode.Status.Finding(
                check: $0.check, result: $0.result.rawValue, evidence: $0.evidence, fix: $0.fix)
        }
        findings.withLock { $0 = wrong }
    }
}

/// Runs a containerd store, and logs once what keeps this node from mirroring.
struct ContainerdStoreService: Service {
    var store: ContainerdContentStore
    var options: ContainerdOptions
    var findings: NodeFindings
    var logger: Logger

    func run() async throws {
        let advice = Task { await advise() }
        defer { advice.cancel() }
        try await store.run()
    }

    /// Between two looks at the node.
    private static let interval = Duration.seconds(300)

    /// Logged once: containerd's configuration changes with a restart of containerd only, and rarely then. The debug page shows
    /// how it is now, or was a few minutes ago.
    private func advise() async {
        guard (try? await store.waitUntilIndexed()) != nil else { return }
        let found = await Self.findings(options)
        findings.replace(by: found)
        for finding in found {
            var metadata: Logger.Metadata = ["check": "\(finding.check)", "evidence": "\(finding.evidence)"]
            metadata["fix"] = finding.fix.map { "\($0)" }
            switch finding.result {
            case .ok, .skipped: logger.debug("node checked", metadata: metadata)
            case .unknown: logger.info("a check of the node could not be made", metadata: metadata)
            case .warning, .failure:
                logger.warning("the node is not set up for mirroring; 'spegel doctor' says more", metadata: metadata)
            }
        }
        while (try? await Task.sleep(for: Self.interval)) != nil {
            findings.replace(by: await Self.findings(options))
        }
    }

    /// The checks that only need files and containerd.
    static func findings(_ options: ContainerdOptions) async -> [DoctorFinding] {
        var evidence = DoctorEvidence()
        evidence.containerdSocketPath = options.socket
        evidence.namespace = options.namespace
        evidence.configurationFile = options.configurationFile
        await ContainerdProbe.examine(&evidence)
        NodeFiles.examine(&evidence)
        // In a container the registry configuration is often not mounted, which says nothing about the node.
        if evidence.registryDirectoryAccess != .usable { evidence.registryDirectoryAccess = nil }
        return Doctor.examine(evidence).filter { Doctor.cheap.contains($0.check) }
    }
}
