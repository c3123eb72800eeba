import Foundation
import TestSupport
import Testing

/// `configuration`, `cleanup` and `cleanup-wait` with real containerd, daemon and upstream.
@Suite struct MirrorConfigurationTests {
    private static func entries(_ path: String) -> [String: Data] {
        var result: [String: Data] = [:]
        for name in (try? FileManager.default.subpathsOfDirectory(atPath: path)) ?? [] {
            var isDirectory: ObjCBool = false
            if FileManager.default.fileExists(atPath: "\(path)/\(name)", isDirectory: &isDirectory),
                !isDirectory.boolValue
            {
                result[name] = FileManager.default.contents(atPath: "\(path)/\(name)")
            }
        }
        return result
    }

    /// containerd follows what was written: a hit at the mirror, a miss that goes upstream, and the upstream alone after the
    /// clean-up, with the operator's own files back.
    @Test func containerdFollowsTheFiles() async throws {
        let layout = try await TestImages.small()
        let digests = try layout.digests(of: TestImages.demo, architecture: "amd64")
        let upstream = try await TestUpstream.start()
        try await upstream.push(TestImages.demo, of: layout, to: "acme/demo:1.0")
        let name = "\(upstream.host)/acme/demo:1.0"
        let first = try await TestNode.start(joining: nil, mounted: true)
        let second = try await TestNode.start(joining: first, mounted: true)
        try await first.untilReady()
        try await second.untilReady()
        try await first.pull(name, from: upstream)
        try await second.untilFound(digests, tag: "1.0", repository: "acme/demo", of: upstream)

        let hosts = second.containerd.path("certs.d")
        let own =
            "server = \"http://\(upstream.host)\"\n[host.\"http://\(upstream.host)\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        try FileManager.default.createDirectory(atPath: "\(hosts)/\(upstream.host)", withIntermediateDirectories: true)
        try Data(own.utf8).write(to: URL(fileURLWithPath: "\(hosts)/\(upstream.host)/hosts.toml"))
        let before = Self.entries(hosts)
        let spegel = try Project.program()
        for _ in 0..<2 {
            try await Command.check(
                spegel, "configuration", "--containerd-registry-config-path", hosts, "--mirrored-registries",
                "http://\(upstream.host)",
                "--mirror-targets", "http://\(second.daemon.registry)")
        }
        func pull(_ name: String) async throws {
            try await second.containerd.ctr(
                "images", "pull", "--hosts-dir", hosts, "--plain-http", "--snapshotter", "native", "--platform",
                "linux/amd64", name)
        }
        _ = try await upstream.takeRequests(including: digests)
        try await pull(name)
        #expect(try await upstream.takeRequests() == [])
        for digest in digests { #expect(try second.containerd.blob(digest) == layout.blob(digest)) }

        // Nobody has it: the mirror says so, and containerd goes on.
        try await upstream.push(TestImages.shared, of: layout, to: "acme/second:v2")
        try await pull("\(upstream.host)/acme/second:v2")
        #expect(try await !upstream.takeRequests(including: [try layout.digest(of: TestImages.shared)]).isEmpty)

        let cleanup = try await ChildProcess.start([
            spegel, "cleanup", "--containerd-registry-config-path", hosts, "--addr", "\(second.daemon.address):8089",
        ])
        try await Command.check(
            spegel, "cleanup-wait", "--probe-endpoint", "\(second.daemon.address):8089", "--threshold", "2", "--period",
            "50ms")
        #expect(Self.entries(hosts) == before)
        cleanup.send(SIGTERM)
        #expect(try await cleanup.wait() == .exited(0))

        // Without the mirror the upstream is asked.
        try await second.containerd.ctr("images", "rm", "--sync", name)
        try await pull(name)
        #expect(try await !upstream.takeRequests(including: [digests[0]]).isEmpty)
    }

    /// The prober waits until every address answers, as often in a row as wanted.
    @Test func cleanupWaitCountsRoundsInARow() async throws {
        let address = LoopbackAddress.next()
        let waiting = try await ChildProcess.start([
            try Project.program(), "cleanup-wait", "--probe-endpoint", "\(address):8089", "--threshold", "3",
            "--period", "20ms",
        ])
        _ = try await waiting.until("a round that fails") { () -> Bool? in
            waiting.errors.contains("not all nodes have cleaned up") ? true : nil
        }
        #expect(!waiting.errors.contains("\"all nodes have cleaned up\""))
        let directory = try TemporaryDirectory("x")
        let cleanup = try await ChildProcess.start([
            try Project.program(), "cleanup", "--containerd-registry-config-path", directory.path("none"), "--addr",
            "\(address):8089",
        ])
        #expect(try await waiting.wait() == .exited(0))
        #expect(LogLine.all(in: waiting.errors).filter { $0.message == "all nodes have cleaned up" }.count == 3)
        cleanup.send(SIGINT)
        #expect(try await cleanup.wait() == .exited(0))
    }

    @Test(arguments: [
        (["--mirror-targets", "http://127.0.0.1:1", "--mirrored-registries", "https://a/b"], "https://a/b"),
        (["--mirror-targets", "ftp://x"], "ftp://x"), ([], "--mirror-targets"),
    ])
    func badOptions(arguments: [String], named: String) async throws {
        let result = try await Command.run([try Project.program(), "configuration"] + arguments)
        #expect(result.status == .exited(64))
        #expect(result.errors.contains(named))
    }

    /// containerd restarts with the changed file and comes up; a second run changes and restarts nothing.
    @Test func preparesARunningContainerd() async throws {
        let directory = try TemporaryDirectory("c")
        var containerd: TestContainerd? = try await TestContainerd.start(in: directory)
        let file = containerd?.configurationFile ?? ""
        let original = FileManager.default.contents(atPath: file)
        // As its supervisor would: the old one ends, and the test starts the new one when the command has asked for it.
        let restart = "touch \(directory.path("asked")); while [ ! -e \(directory.path("done")) ]; do sleep 0.05; done"
        let arguments = [
            try Project.program(), "containerd-prep", "--containerd-config-file", file, "--containerd-sock",
            containerd?.socket ?? "", "--containerd-registry-config-path", "/etc/containerd/certs.d",
            "--restart-command", restart,
        ]
        let diff = try await Command.check(Array(arguments.prefix(8)) + ["--dry-run"])
        #expect(diff.contains("+  config_path = \"/etc/containerd/certs.d\""))
        #expect(FileManager.default.contents(atPath: file) == original)

        let prep = try await ChildProcess.start(arguments)
        _ = try await prep.until("the restart being asked for") { () -> Bool? in
            FileManager.default.fileExists(atPath: directory.path("asked")) ? true : nil
        }
        containerd?.process.send(SIGTERM)
        _ = try await containerd?.process.wait()
        let changed = FileManager.default.contents(atPath: file)
        // The harness writes its own file at the start; what was prepared has to be what runs.
        let process = try await ChildProcess.start(["containerd", "--config", file])
        _ = FileManager.default.createFile(atPath: directory.path("done"), contents: nil)
        #expect(try await prep.wait() == .exited(0), "\(prep.errors)")
        #expect(changed != original)
        #expect(FileManager.default.contents(atPath: file + ".spegel-backup") == original)
        let again = try await Command.run(arguments)
        #expect(again.status == .exited(0))
        #expect(again.errors.contains("nothing to change"))
        #expect(FileManager.default.contents(atPath: file) == changed)
        process.send(SIGTERM)
        _ = try await process.wait()
        containerd = nil
    }

    /// A run that is killed between the change and the restart is completed by the next one: the restart, or the way back.
    @Test(arguments: [true, false])
    func killedDuringTheRestart(comesUp: Bool) async throws {
        let directory = try TemporaryDirectory("c")
        let containerd = try await TestContainerd.start(in: directory)
        let file = containerd.configurationFile
        let original = FileManager.default.contents(atPath: file)
        func prepare(_ restart: String) async throws -> Command.Result {
            try await Command.run([
                try Project.program(), "containerd-prep", "--containerd-config-file", file, "--containerd-sock",
                containerd.socket, "--restart-command", restart,
            ])
        }
        #expect(try await prepare("kill -9 $PPID").status == .signalled(SIGKILL))
        let changed = FileManager.default.contents(atPath: file)
        #expect(changed != original)
        let marker = directory.path("restarted")
        let second = try await prepare(comesUp ? "touch \(marker)" : "touch \(marker); exit 3")
        #expect(FileManager.default.fileExists(atPath: marker))
        #expect(second.status == .exited(comesUp ? 0 : 1), "\(second.errors)")
        #expect(FileManager.default.contents(atPath: file) == (comesUp ? changed : original))
        #expect(!FileManager.default.fileExists(atPath: file + ".spegel-pending"))
        if comesUp {
            try FileManager.default.removeItem(atPath: marker)
            #expect(try await prepare("touch \(marker)").status == .exited(0))
            #expect(!FileManager.default.fileExists(atPath: marker))
        }
    }

    /// With mirror tables and config_path the CRI plugin would not load: nothing is written, and containerd is left alone.
    @Test func refusesWhatWouldDisableCRI() async throws {
        let directory = try TemporaryDirectory("c")
        let text =
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://x\"]\n"
        let file = try directory.write(text, to: "config.toml")
        let result = try await Command.run([
            try Project.program(), "containerd-prep", "--containerd-config-file", file, "--containerd-sock",
            directory.path("none"), "--restart-command", "touch \(directory.path("restarted"))",
        ])
        #expect(result.status == .exited(1))
        #expect(result.errors.contains("registry.mirrors"))
        #expect(Self.entries(directory.path("")) == ["config.toml": Data(text.utf8)])
    }

    /// As in a container: the directory is a mount point, which cannot be exchanged as a whole. And a read-only one is named.
    @Test func mountPoints() async throws {
        let directory = try TemporaryDirectory("m")
        let own = "server = 'https://quay.io'\n"
        _ = try directory.write(own, to: "certs.d/quay.io/hosts.toml")
        let (path, spegel) = (directory.path("certs.d"), try Project.program())
        func inNamespace(_ options: String, _ command: String) async throws -> Command.Result {
            try await Command.run([
                "unshare", "--mount", "sh", "-ec",
                "mount --bind \(path) \(path); mount -o remount,bind\(options) \(path); \(command)",
            ])
        }
        let configure =
            "\(spegel) configuration --mirror-targets http://127.0.0.1:1 --containerd-registry-config-path \(path)"
        let readOnly = try await inNamespace(",ro", configure)
        #expect(readOnly.status == .exited(1))
        #expect(
            readOnly.errors.contains(path) && readOnly.errors.contains("Read-only file system"), "\(readOnly.errors)")
        #expect(Self.entries(path) == ["quay.io/hosts.toml": Data(own.utf8)])
        for _ in 0..<2 {
            let result = try await inNamespace("", configure)
            #expect(result.status == .exited(0), "\(result.errors)")
            #expect(Set(Self.entries(path).keys) == ["_backup/quay.io/hosts.toml", "_default/hosts.toml"])
        }
        let cleanup = try await inNamespace(
            "", "timeout -s INT 5 \(spegel) cleanup --addr 127.0.0.1:0 --containerd-registry-config-path \(path)")
        #expect(cleanup.errors.contains("the registry configuration is restored"), "\(cleanup.errors)")
        #expect(Self.entries(path) == ["quay.io/hosts.toml": Data(own.utf8)])
    }

    /// As in a privileged container with the host's process namespace: systemd is asked in the namespaces of process 1.
    @Test func restartsThroughTheHost() async throws {
        let directory = try TemporaryDirectory("c")
        let containerd = try await TestContainerd.start(in: directory)
        let stub = try directory.write("#!/bin/sh\necho \"$*\" >> \(directory.path("asked"))\n", to: "systemctl")
        let prepare =
            "\(try Project.program()) containerd-prep --restart-systemd --containerd-config-file \(containerd.configurationFile)"
            + " --containerd-sock \(containerd.socket)"
        // The host has a systemctl of its own, which the container does not see.
        try await Command.check([
            "unshare", "--pid", "--fork", "--mount-proc", "sh", "-ec",
            "mount -t tmpfs none /usr/local/sbin; install \(stub) /usr/local/sbin/systemctl; "
                + "unshare --mount sh -ec 'umount /usr/local/sbin; test ! -e /usr/local/sbin/systemctl; \(prepare)'",
        ])
        #expect(Self.entries(directory.path)["asked"] == Data("restart containerd\n".utf8))
        #expect(Self.entries(directory.path)["config.toml.spegel-backup"] != nil)
    }

    /// What containerd refused is not tried again and again, which would restart it each time, until the file changes.
    @Test func aRefusedChangeIsTriedOnce() async throws {
        let directory = try TemporaryDirectory("c")
        let file = try directory.write("version = 2\n", to: "config.toml")
        let restarts = directory.path("restarts")
        let prep = try await ChildProcess.start([
            try Project.program(), "containerd-prep", "--containerd-config-file", file, "--containerd-sock",
            directory.path("none"), "--interval", "50ms", "--restart-command", "echo >> \(restarts); exit 1",
        ])
        func untilRestarts(_ count: Int) async throws {
            _ = try await prep.until("\(count) restarts") { () -> Bool? in
                (FileManager.default.contents(atPath: restarts)?.count ?? 0) >= count ? true : nil
            }
        }
        // Each try restarts twice: with the change, and with the former file.
        try await untilRestarts(2)
        try await Task.sleep(for: .seconds(1))
        #expect(FileManager.default.contents(atPath: restarts)?.count == 2)
        try Data("version = 2 # changed\n".utf8).write(to: URL(fileURLWithPath: file))
        try await untilRestarts(4)
        prep.send(SIGTERM)
        #expect(try await prep.wait() == .exited(0))
        #expect(FileManager.default.contents(atPath: restarts)?.count == 4)
        #expect(FileManager.default.contents(atPath: file) == Data("version = 2 # changed\n".utf8))
    }
}
