import Foundation
import NodeConfiguration
import Testing

/// The doctor's findings: each fault is found, the fix is named, and without the fault all is well.
@Suite struct DoctorTests {
    static let prepared = """
        version = 2
        [plugins."io.containerd.grpc.v1.cri".registry]
        config_path = "/etc/containerd/certs.d"
        """
    static let hosts = HostsFile(
        server: "https://registry-1.docker.io", targets: ["http://127.0.0.1:30020"], resolvesTags: true
    ).text()

    static func configuration(_ text: String, release: ContainerdRelease? = nil) -> Result<
        ContainerdConfigurationFiles, ContainerdConfigurationError
    > {
        do {
            return .success(
                try ContainerdConfigurationFiles(
                    main: "/etc/containerd/config.toml", release: release,
                    reader: .init(read: { _ in Array(text.utf8) }, expand: { _ in [] })))
        } catch let error as ContainerdConfigurationError {
            return .failure(error)
        } catch {
            return .failure(.file(path: "", reason: "\(error)"))
        }
    }

    static func healthy() throws -> DoctorEvidence {
        var evidence = DoctorEvidence()
        evidence.socket = .answers(version: "1.7.24")
        evidence.namespaces = ["k8s.io", "default"]
        evidence.images = 12
        evidence.contentPath = "/var/lib/containerd/io.containerd.content.v1.content"
        evidence.contentRoot = evidence.contentPath
        evidence.contentAccess = .usable
        evidence.ingestAccess = .usable
        evidence.criPlugin = .usable
        evidence.configuration = configuration(prepared)
        evidence.registryDirectoryAccess = .usable
        evidence.registries = [try RegistryURL(parsing: "https://docker.io")]
        evidence.hosts = [.init(name: "docker.io", file: Array(hosts.utf8))]
        evidence.mirrorAnswers = ["http://127.0.0.1:30020": .status(200)]
        evidence.metricsAddress = "127.0.0.1:9090"
        evidence.daemon = .success(.init(isReady: true, reason: nil, peerID: "12D3", peers: 2, advertisedKeys: 40))
        evidence.ports = ["--registry-addr 127.0.0.1:5000": .status(200), "--router-addr 127.0.0.1:5001": .status(200)]
        evidence.bootstrapName = "spegel-bootstrap.spegel.svc"
        evidence.bootstrapAddresses = .success(["10.0.0.1"])
        evidence.ownKey = ("sha256:1", true, nil)
        evidence.fetch = .verified(digest: "sha256:1", source: "10.0.0.2:5000", bytes: 500)
        evidence.clockOffsets = ["10.0.0.2": 0.4]
        evidence.openFiles = 1 << 20
        evidence.inotifyWatches = 65_536
        evidence.inotifyInstances = 128
        evidence.dataDirectory = "/var/lib/spegel"
        evidence.dataDirectoryAccess = .usable
        evidence.keyFileMode = 0o600
        return evidence
    }

    struct Fault: Sendable, CustomTestStringConvertible {
        var name: String
        var check: DoctorCheck
        /// What the fix has to name.
        var fix: String
        var seed: @Sendable (inout DoctorEvidence) throws -> Void

        var testDescription: String { name }
    }

    static let faults: [Fault] = [
        Fault(name: "no socket", check: Doctor.socket, fix: "--containerd-sock") { $0.socket = .missing },
        Fault(name: "no permission for the socket", check: Doctor.socket, fix: "systemctl restart containerd") {
            $0.socket = .refused("Permission denied")
        },
        Fault(name: "another namespace", check: Doctor.namespace, fix: "--containerd-namespace") {
            $0.namespaces = ["moby"]
        },
        Fault(name: "an empty namespace", check: Doctor.namespace, fix: "--containerd-namespace") { $0.images = 0 },
        Fault(name: "content elsewhere", check: Doctor.content, fix: "--containerd-content-path /data/content") {
            $0.contentRoot = "/data/content"
        },
        Fault(name: "content not mounted", check: Doctor.content, fix: "mount") { $0.contentAccess = .missing },
        Fault(name: "content not readable", check: Doctor.content, fix: "read") {
            $0.contentAccess = .denied("Permission denied")
        },
        Fault(name: "ingests not readable", check: Doctor.content, fix: "ingest") {
            $0.ingestAccess = .denied("Permission denied")
        },
        Fault(name: "containerd 1.5", check: Doctor.version, fix: "1.6") { $0.socket = .answers(version: "1.5.9") },
        Fault(name: "parallel layer fetch", check: Doctor.version, fix: "concurrent_layer_fetch_buffer = 0") {
            $0.socket = .answers(version: "2.2.1")
            $0.configuration = configuration(
                "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n[plugins.'io.containerd.transfer.v1.local']\nconcurrent_layer_fetch_buffer = 1048576\n",
                release: ContainerdRelease(major: 2, minor: 2))
        },
        Fault(name: "a file that containerd 1.6 refuses", check: Doctor.version, fix: "quay.io/hosts.toml") {
            $0.socket = .answers(version: "1.6.20~ds1")
            $0.hosts?.append(.init(name: "quay.io", file: Array("server = 'https://quay.io'".utf8)))
        },
        Fault(name: "a CRI plugin that is not loaded", check: Doctor.cri, fix: "/etc/containerd/config.toml") {
            $0.criPlugin = .denied("io.containerd.grpc.v1.cri: invalid plugin config")
        },
        Fault(name: "no config_path", check: Doctor.configPath, fix: "spegel containerd-prep") {
            $0.configuration = configuration("version = 2\n")
        },
        Fault(name: "another config_path", check: Doctor.configPath, fix: "spegel containerd-prep") {
            $0.configuration = configuration(prepared.replacingOccurrences(of: "certs.d", with: "hosts.d"))
        },
        Fault(
            name: "not restarted since config_path was set", check: Doctor.configPath,
            fix: "systemctl restart containerd"
        ) { $0.runtimeConfigPath = "" },
        Fault(name: "a broken config.toml", check: Doctor.configPath, fix: "config.toml") {
            $0.configuration = configuration("version = [")
        },
        Fault(name: "layers discarded", check: Doctor.layers, fix: "spegel containerd-prep") {
            $0.configuration = configuration(
                prepared + "\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n")
        },
        Fault(name: "layers discarded until the restart", check: Doctor.layers, fix: "systemctl restart containerd") {
            $0.runtimeConfigPath = "/etc/containerd/certs.d"
            $0.runtimeDiscardsLayers = true
        },
        Fault(name: "a list before the transfer service", check: Doctor.transfer, fix: "use_local_image_pull") {
            $0.configuration = configuration(
                "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n",
                release: ContainerdRelease(major: 2, minor: 1))
        },
        Fault(name: "old mirror tables", check: Doctor.legacy, fix: "hosts.toml") {
            $0.configuration = configuration(
                prepared
                    + "\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = ['https://x']\n"
            )
        },
        Fault(name: "no registry directory", check: Doctor.hostsFiles, fix: "spegel configuration") {
            $0.registryDirectoryAccess = .missing
        },
        Fault(name: "no hosts.toml", check: Doctor.hostsFiles, fix: "spegel configuration") { $0.hosts = [] },
        Fault(name: "a broken hosts.toml", check: Doctor.hostsFiles, fix: "repair") {
            $0.hosts?[0].file = Array("[host".utf8)
        },
        Fault(name: "a hosts.toml without hosts", check: Doctor.hostsFiles, fix: "spegel configuration") {
            $0.hosts?[0].file = Array("server = 'https://x'".utf8)
        },
        Fault(name: "a first host that may not pull", check: Doctor.hostsFiles, fix: "'pull'") {
            $0.hosts?[0].file = Array("[host.'http://a']\ncapabilities = ['push']\n".utf8)
        },
        Fault(name: "a hosts.toml that cannot be read", check: Doctor.hostsFiles, fix: "read") {
            $0.hosts?[0].file = nil
            $0.hosts?[0].problem = "Permission denied"
        },
        Fault(name: "an older directory name of a port", check: Doctor.shadow, fix: "foo.bar_5000_") {
            $0.registries = [try RegistryURL(parsing: "http://foo.bar:5000")]
            $0.hosts = [
                .init(name: "foo.bar:5000", file: Array(hosts.utf8)),
                .init(name: "foo.bar_5000_", file: Array("a = 1".utf8)),
            ]
        },
        Fault(name: "a registry that stands before the wildcard", check: Doctor.shadow, fix: "--mirrored-registries") {
            $0.registries = []
            $0.hosts = [
                .init(name: "_default", file: Array(hosts.utf8)), .init(name: "docker.io", file: Array("a = 1".utf8)),
            ]
        },
        Fault(name: "a mirror that is not there", check: Doctor.mirror, fix: "--registry-addr") {
            $0.mirrorAnswers = ["http://127.0.0.1:30020": .failed("Connection refused")]
        },
        Fault(name: "a mirror that is something else", check: Doctor.mirror, fix: "registry port") {
            $0.mirrorAnswers = ["http://127.0.0.1:30020": .status(404)]
        },
        Fault(name: "a mirror that wants a password", check: Doctor.auth, fix: "/etc/secrets/basic-auth") {
            $0.mirrorAnswers = ["http://127.0.0.1:30020": .status(401)]
        },
        Fault(name: "a secret that containerd does not send", check: Doctor.auth, fix: "spegel configuration") {
            $0.authorization = "Basic eDp5"
        },
        Fault(name: "no daemon", check: Doctor.daemon, fix: "spegel registry") {
            $0.daemon = .failure(DoctorProbeError("Connection refused"))
        },
        Fault(name: "a daemon that is not ready", check: Doctor.daemon, fix: "bootstrap") {
            $0.daemon = .success(
                .init(
                    isReady: false, reason: "the router has not joined the cluster", peerID: "12D3", peers: 1,
                    advertisedKeys: 0))
        },
        Fault(name: "a router port that is closed", check: Doctor.ports, fix: "--router-addr") {
            $0.ports?["--router-addr 127.0.0.1:5001"] = .failed("Connection refused")
        },
        Fault(name: "a bootstrap name that does not exist", check: Doctor.bootstrap, fix: "--dns-bootstrap-domain") {
            $0.bootstrapAddresses = .failure(DoctorProbeError("Name or service not known"))
        },
        Fault(name: "a bootstrap name without addresses", check: Doctor.bootstrap, fix: "headless") {
            $0.bootstrapAddresses = .success([])
        },
        Fault(name: "no peers", check: Doctor.peers, fix: "--bootstrap-kind") {
            $0.daemon = .success(.init(isReady: true, reason: nil, peerID: "12D3", peers: 0, advertisedKeys: 40))
        },
        Fault(name: "a key that peers do not find", check: Doctor.ownKey, fix: "--router-addr") {
            $0.ownKey = ("sha256:1", false, nil)
        },
        Fault(name: "content that does not come", check: Doctor.fetch, fix: "--registry-addr") {
            $0.fetch = .failed(digest: "sha256:1", reason: "Connection refused")
        },
        Fault(name: "nothing to try", check: Doctor.fetch, fix: "pull an image") { $0.fetch = .nothingShared },
        Fault(name: "a clock that is wrong", check: Doctor.clock, fix: "timesyncd") {
            $0.clockOffsets = ["10.0.0.2": -90]
        },
        Fault(name: "few descriptors", check: Doctor.openFiles, fix: "LimitNOFILE") { $0.openFiles = 1024 },
        Fault(name: "few watches", check: Doctor.inotify, fix: "max_user_watches") { $0.inotifyWatches = 128 },
        Fault(name: "no data directory", check: Doctor.dataDirectory, fix: "mkdir") {
            $0.dataDirectoryAccess = .missing
        },
        Fault(name: "a data directory that cannot be written", check: Doctor.dataDirectory, fix: "write") {
            $0.dataDirectoryAccess = .denied("Read-only file system")
        },
        Fault(name: "a key that everybody reads", check: Doctor.dataDirectory, fix: "chmod 0600") {
            $0.keyFileMode = 0o644
        },
    ]

    @Test func aHealthyNodeHasNothingToDo() throws {
        let report = DoctorReport(try Self.healthy())
        #expect(report.worst <= .skipped, "\(report.findings.filter { $0.result > .skipped })")
        #expect(report.exitStatus == 0)
        #expect(report.findings.allSatisfy { $0.fix == nil })
    }

    @Test(arguments: faults)
    func findsAndFixes(fault: Fault) throws {
        var evidence = try Self.healthy()
        try fault.seed(&evidence)
        let report = DoctorReport(evidence)
        let found = report.findings.filter { $0.check == fault.check.id && $0.result > .skipped }
        #expect(found.count == 1, "\(report.findings)")
        #expect(found.first?.fix?.contains(fault.fix) == true, "\(found)")
        #expect(report.exitStatus != 0)
        // Nothing else is blamed, but what cannot be known any more.
        let others = report.findings.filter { $0.check != fault.check.id && $0.result == .failure }
        #expect(others.allSatisfy { $0.check == Doctor.layers.id }, "\(others)")
    }

    @Test func everyCheckHasAFault() {
        let checks = Set(Self.faults.map(\.check.id))
        #expect(Set(Doctor.checks.map(\.id)) == checks)
        #expect(Doctor.checks.count == checks.count)
    }

    @Test func theReportIsJSON() throws {
        var evidence = try Self.healthy()
        evidence.openFiles = 10
        let object = try #require(
            try JSONSerialization.jsonObject(with: Data(DoctorReport(evidence).json().utf8)) as? [String: Any])
        #expect(object["worst"] as? String == "warning")
        let findings = try #require(object["findings"] as? [[String: String]])
        #expect(findings.contains { $0["check"] == "open-files" && $0["result"] == "warning" && $0["fix"] != nil })
    }

    /// The page says of every check what it means, in the words of the program.
    @Test func theTroubleshootingPageHasEveryCheck() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let page = try String(contentsOf: root.appendingPathComponent("docs/troubleshooting.md"), encoding: .utf8)
        for check in Doctor.checks {
            #expect(
                page.contains("### `\(check.id)`\n\n\(check.title). Otherwise: \(check.consequence)\n"), "\(check.id)")
        }
        let headings = page.components(separatedBy: "\n").filter { $0.hasPrefix("### `") }
        #expect(headings.count == Doctor.checks.count, "a section without a check")
    }
}
