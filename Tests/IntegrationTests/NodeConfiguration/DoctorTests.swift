import Foundation
import TestSupport
import Testing

/// `spegel doctor` on three nodes with real containerds: all is well, and what is broken is found and named.
@Suite struct NodeDoctorTests {
    struct Finding: Decodable {
        var check: String
        var result: String
        var evidence: String
        var fix: String?
    }

    struct Report: Decodable {
        var worst: String
        var findings: [Finding]

        subscript(check: String) -> Finding? {
            findings.filter { $0.check == check }.max { Self.rank($0.result) < Self.rank($1.result) }
        }

        private static func rank(_ result: String) -> Int {
            ["ok", "skipped", "unknown", "warning", "failure"].firstIndex(of: result) ?? 0
        }
    }

    private static func doctor(_ options: [String: String]) async throws -> Report {
        let arguments = options.sorted { $0.key < $1.key }.flatMap { ["--\($0.key)", $0.value] }
        let result = try await Command.run([try Project.program(), "doctor", "--format", "json"] + arguments)
        do {
            return try JSONDecoder().decode(Report.self, from: Data(result.output.utf8))
        } catch {
            throw HarnessFailure("doctor: \(result.status)\n\(result.output)\n\(result.errors)")
        }
    }

    @Test func findsWhatIsBrokenOnThreeNodes() async throws {
        let layout = try await TestImages.small()
        let digests = try layout.digests(of: TestImages.demo, architecture: "amd64")
        let upstream = try await TestUpstream.start()
        try await upstream.push(TestImages.demo, of: layout, to: "acme/demo:1.0")
        let name = "\(upstream.host)/acme/demo:1.0"
        let node = try await TestNode.start(joining: nil, mounted: true)
        let second = try await TestNode.start(joining: node, mounted: true)
        let third = try await TestNode.start(joining: node, mounted: true)
        for each in [node, second, third] { try await each.untilReady() }
        for each in [node, second, third] {
            try await each.pull(name, from: upstream)
            try await each.untilFound(digests, tag: "1.0", repository: "acme/demo", of: upstream)
        }
        try await node.untilNamed(digests, at: second)
        try await second.untilNamed(digests, at: node)
        try await third.untilNamed(digests, at: node)

        let spegel = try Project.program()
        let hosts = node.containerd.path("certs.d")
        let data = node.containerd.path("data")
        try FileManager.default.createDirectory(
            atPath: data, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        let configure = [
            spegel, "configuration", "--containerd-registry-config-path", hosts, "--mirrored-registries",
            "http://\(upstream.host)",
            "--mirror-targets", "http://\(node.daemon.registry)",
        ]
        try await Command.check(configure)
        let prepare = [
            spegel, "containerd-prep", "--containerd-config-file", node.containerd.configurationFile,
            "--containerd-sock", node.containerd.socket,
            "--containerd-registry-config-path", hosts,
        ]
        try await Command.check(prepare)
        let address = node.daemon.address
        let options = [
            "containerd-sock": node.containerd.socket, "containerd-config-file": node.containerd.configurationFile,
            "containerd-registry-config-path": hosts, "mirrored-registries": "http://\(upstream.host)",
            "data-dir": data,
            "registry-addr": "\(address):5000", "metrics-addr": "\(address):9090", "router-addr": "\(address):5001",
            "dns-bootstrap-domain": "localhost",
        ]
        let healthy = try await Self.doctor(options)
        #expect(
            healthy.findings.allSatisfy { ["ok", "skipped"].contains($0.result) },
            "\(healthy.findings.filter { $0.result != "ok" })")
        for check in [
            "containerd-socket", "config-path", "hosts-files", "mirror-answers", "daemon", "ports", "peers", "own-key",
            "peer-content", "clock",
        ] {
            #expect(healthy[check]?.result == "ok", "\(check)")
        }

        // A peer gets what this node lacks: it comes from there, through the mirror.
        try await upstream.push(TestImages.shared, of: layout, to: "acme/second:v2")
        try await third.pull("\(upstream.host)/acme/second:v2", from: upstream)
        let foreign = try layout.digest(of: TestImages.shared)
        try await third.untilNamed([foreign], at: third)
        _ = try await node.daemon.process.until("the whole way being tried") { () -> Bool? in
            let finding = try await Self.doctor(options)["peer-content"]
            return finding?.result == "ok" && finding?.evidence.contains("through the mirror") == true ? true : nil
        }

        /// One option changed, or something on disk, and back.
        func expect(
            _ check: String, _ fix: String, _ changed: [String: String] = [:],
            seed: () async throws -> Void = {},
            mend: () async throws -> Void = {}
        ) async throws {
            try await seed()
            let bad = try await Self.doctor(options.merging(changed) { $1 })
            #expect(["failure", "warning"].contains(bad[check]?.result), "\(check): \(bad.findings)")
            #expect(bad[check]?.fix?.contains(fix) == true, "\(check): \(String(describing: bad[check]))")
            try await mend()
            let good = try await Self.doctor(options)
            #expect(good[check]?.result == "ok", "\(check) after the fix: \(String(describing: good[check]))")
        }
        func write(_ text: String, _ path: String) throws { try Data(text.utf8).write(to: URL(fileURLWithPath: path)) }
        let hostsFile = "\(hosts)/\(upstream.host)/hosts.toml"
        let generated = try String(contentsOfFile: hostsFile, encoding: .utf8)
        let configuration = try String(contentsOfFile: node.containerd.configurationFile, encoding: .utf8)
        let dead = LoopbackAddress.next()

        try await expect("containerd-socket", "--containerd-sock", ["containerd-sock": "/nonexistent.sock"])
        try await expect("containerd-namespace", "--containerd-namespace", ["containerd-namespace": "moby"])
        try await expect("content-path", node.containerd.contentPath, ["containerd-content-path": "/elsewhere"])
        try await expect(
            "config-path", "containerd-prep",
            seed: {
                try write(
                    configuration.replacingOccurrences(of: hosts, with: "/elsewhere"), node.containerd.configurationFile
                )
            }, mend: { try await Command.check(prepare) })
        try await expect(
            "discard-unpacked-layers", "containerd-prep",
            seed: {
                try write(
                    configuration
                        + "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n",
                    node.containerd.configurationFile)
            }, mend: { try await Command.check(prepare) })
        try await expect(
            "legacy-registry-tables", "hosts.toml",
            seed: {
                try write(
                    configuration
                        + "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://x\"]\n",
                    node.containerd.configurationFile)
            }, mend: { try write(configuration, node.containerd.configurationFile) })
        try await expect(
            "config-path", "config.toml", seed: { try write("version = [", node.containerd.configurationFile) },
            mend: { try write(configuration, node.containerd.configurationFile) })
        try await expect(
            "hosts-files", "spegel configuration", seed: { try FileManager.default.removeItem(atPath: hostsFile) },
            mend: { try await Command.check(configure) })
        try await expect(
            "hosts-files", "repair", seed: { try write("[host", hostsFile) }, mend: { try write(generated, hostsFile) })
        try await expect(
            "hosts-files", "'pull'",
            seed: { try write(generated.replacingOccurrences(of: "'pull', ", with: ""), hostsFile) },
            mend: { try write(generated, hostsFile) })
        let alias = "\(hosts)/\(upstream.host.replacingOccurrences(of: ":", with: "_"))_"
        try await expect(
            "hosts-shadow", alias,
            seed: {
                try FileManager.default.createDirectory(atPath: alias, withIntermediateDirectories: true)
                try write("server = 'http://x'", alias + "/hosts.toml")
            }, mend: { try FileManager.default.removeItem(atPath: alias) })
        try await expect(
            "mirror-answers", "--registry-addr",
            seed: {
                try write(generated.replacingOccurrences(of: node.daemon.registry, with: "\(dead):5000"), hostsFile)
            }, mend: { try write(generated, hostsFile) })
        try await expect(
            "mirror-answers", "registry port",
            seed: {
                try write(generated.replacingOccurrences(of: node.daemon.registry, with: "\(address):9090"), hostsFile)
            }, mend: { try write(generated, hostsFile) })
        // The upstream itself stands first.
        try await expect(
            "mirror-answers", "--mirror-targets",
            seed: {
                try write(generated.replacingOccurrences(of: node.daemon.registry, with: upstream.host), hostsFile)
            }, mend: { try write(generated, hostsFile) })
        try await expect("daemon", "spegel registry", ["metrics-addr": "\(dead):9090"])
        try await expect("ports", "--router-addr", ["router-addr": "\(dead):5001"])
        try await expect("bootstrap", "--dns-bootstrap-domain", ["dns-bootstrap-domain": "no-such-name.invalid"])
        func limit(_ number: Int) async throws {
            try await Command.check("prlimit", "--pid", "\(node.daemon.process.pid)", "--nofile=\(number):")
        }
        try await expect(
            "open-files", "LimitNOFILE", seed: { try await limit(1024) }, mend: { try await limit(8192) })
        try await expect("data-directory", "mkdir", ["data-dir": "/nonexistent/data"])
        try await expect(
            "data-directory", "chmod 0600",
            seed: {
                _ = FileManager.default.createFile(
                    atPath: data + "/private.key", contents: Data(), attributes: [.posixPermissions: 0o644])
            },
            mend: {
                try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: data + "/private.key")
            })

        // The peers go: first their registries answer no more, then nobody is known.
        second.daemon.process.send(SIGSTOP)
        third.daemon.process.send(SIGSTOP)
        let silent = try await Self.doctor(options)
        #expect(["failure", "unknown"].contains(silent["own-key"]?.result ?? "failure"), "\(silent.findings)")
        second.daemon.process.send(SIGCONT)
        third.daemon.process.send(SIGCONT)
        _ = try await node.daemon.process.until("the peers being back") { () -> Bool? in
            let report = try await Self.doctor(options)
            return report["own-key"]?.result == "ok" && report["peer-content"]?.result == "ok" ? true : nil
        }
        for peer in [second, third] {
            peer.daemon.process.send(SIGTERM)
            _ = try await peer.daemon.process.wait()
        }
        _ = try await node.daemon.process.until("the peers being gone") { () -> Bool? in
            let report = try await Self.doctor(options)
            return report["peers"]?.result == "warning" || report["daemon"]?.result == "failure" ? true : nil
        }
    }

    /// A pull that happens while the doctor watches is told of.
    @Test func watchTellsOfAPull() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path, ports: .usual)
        let watch = try await ChildProcess.start([
            try Project.program(), "doctor", "--watch", "--metrics-addr", "\(daemon.address):9090",
        ])
        _ = try await watch.until("the watch beginning") { () -> Bool? in
            watch.output.contains("Waiting for requests") ? true : nil
        }
        let digest = try layout.digest(of: TestImages.demo)
        #expect(try await daemon.request("GET", "/v2/library/demo/manifests/\(digest)?ns=docker.io").status == 200)
        #expect(try await daemon.request("GET", "/v2/library/none/manifests/1?ns=docker.io").status == 404)
        #expect(try await watch.wait() == .exited(0))
        #expect(watch.output.contains("1 not found, 1 served"), "\(watch.output)")
        #expect(watch.output.contains("/v2/library/demo/manifests/\(digest)"))
    }
}
