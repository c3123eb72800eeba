import Foundation
import NodeConfiguration
import Testing

/// Setting `config_path` and `discard_unpacked_layers` in the configuration files of real node images.
@Suite struct ContainerdPreparationTests {
    static let directory = "/etc/containerd/certs.d"

    static func fixture(_ name: String) throws -> [UInt8] {
        let url = try #require(Bundle.module.url(forResource: "Fixtures/containerd/\(name)", withExtension: "toml"))
        return Array(try Data(contentsOf: url))
    }

    static let names = [
        "v0-empty", "v1-explicit", "v1-old", "v2-bottlerocket", "v2-crlf", "v2-debian", "v2-dotted", "v2-eks", "v2-gke",
        "v2-inline",
        "v2-k3s", "v2-kind", "v2-kubeadm", "v2-no-final-newline", "v2-rke2-tabs", "v2-talos", "v3-eks", "v3-k3s",
        "v3-kubeadm", "v4-default",
    ]

    static func files(_ bytes: [UInt8], release: ContainerdRelease? = nil) throws -> ContainerdConfigurationFiles {
        try ContainerdConfigurationFiles(
            main: "/etc/containerd/config.toml", release: release,
            reader: .init(read: { $0 == "/etc/containerd/config.toml" ? bytes : [] }, expand: { _ in [] }))
    }

    @Test(arguments: names, [nil, ContainerdRelease(major: 1, minor: 6), ContainerdRelease(major: 2, minor: 2)])
    func setsBothAndChangesNothingElse(name: String, release: ContainerdRelease?) throws {
        // A containerd 2 reads no files of version 1, one before 2 none of version 3.
        if let release, release.major >= 2, name.hasPrefix("v1") { return }
        if let release, release.major < 2, name.hasPrefix("v3") || name.hasPrefix("v4") { return }
        let original = try Self.fixture(name)
        let preparation = try ContainerdPreparation(
            try Self.files(original, release: release), registryDirectory: Self.directory)
        let result = preparation.result.main.document.bytes
        #expect(preparation.result.isPrepared(for: Self.directory))
        #expect(preparation.changes.count <= 1)

        // Every line but those of the two settings, their tables and the version is there, in order, byte for byte.
        let old = Self.lines(original), new = Self.lines(result)
        for change in new.difference(from: old) {
            switch change {
            case .remove(_, let line, _):
                // A line that goes is one that comes again with another value.
                #expect(
                    line.contains("config_path") || line.contains("discard_unpacked_layers") || !line.hasSuffix("\n"),
                    "lost: \(line)")
            case .insert(_, let line, _):
                let text = line.trimmingCharacters(in: .whitespacesAndNewlines)
                #expect(
                    text.isEmpty || text.contains("config_path") || text.contains("discard_unpacked_layers")
                        || text == "version = 2" || text.hasPrefix("[plugins.") || !line.hasSuffix("\n")
                        || old.last.map { line.hasPrefix($0) } == true, "added: \(line)")
            }
        }
        let second = try ContainerdPreparation(
            try Self.files(result, release: release), registryDirectory: Self.directory)
        #expect(second.changes.isEmpty, "a second run changes nothing")
        #expect(second.diff.isEmpty)
    }

    private static func lines(_ bytes: [UInt8]) -> [String] {
        String(decoding: bytes, as: UTF8.self).unicodeScalars.reduce(into: [""]) { lines, scalar in
            lines[lines.count - 1].unicodeScalars.append(scalar)
            if scalar == "\n" { lines.append("") }
        }.filter { !$0.isEmpty }
    }

    /// containerd itself, as installed on this machine, reads the result as meant.
    @Test(arguments: names.filter { !$0.hasPrefix("v3") && !$0.hasPrefix("v4") })
    func containerdAgrees(name: String) async throws {
        let scratch = ScratchDirectory()
        var original = String(decoding: try Self.fixture(name), as: UTF8.self)
        // What is imported exists here.
        original = original.replacingOccurrences(of: "/etc/cri/conf.d/cri.toml", with: scratch.path + "/cri.toml")
        try scratch.write(["config.toml": original, "cri.toml": "version = 2\n"])
        let release = ContainerdRelease(major: 1, minor: 6)
        let files = try ContainerdConfigurationFiles(main: scratch.path + "/config.toml", release: release)
        let preparation = try ContainerdPreparation(files, registryDirectory: Self.directory)
        for change in preparation.changes { try Data(change.new).write(to: URL(fileURLWithPath: change.path)) }
        let dump = try await HostCommand(["containerd", "--config", scratch.path + "/config.toml", "config", "dump"])
            .run()
        #expect(dump.status == 0, "\(dump.output)")
        #expect(dump.output.contains("discard_unpacked_layers = false"))
        let paths = dump.output.split(separator: "\n").filter { $0.contains("      config_path = ") }
        #expect(paths.count == 1)
        #expect(paths.first?.contains(Self.directory) == true, "\(paths)")
    }

    // MARK: Imports

    private static func imported(main: String, _ imported: [String: String], release: ContainerdRelease?) throws
        -> ContainerdConfigurationFiles
    {
        try ContainerdConfigurationFiles(
            main: "/c/config.toml", release: release,
            reader: .init(
                read: { path in path == "/c/config.toml" ? Array(main.utf8) : imported[path].map { Array($0.utf8) } },
                expand: { pattern in
                    imported.keys.filter { ContainerdConfigurationFiles.Reader.matches($0, pattern: pattern) }.sorted()
                }))
    }

    static let criTable = "[plugins.\"io.containerd.grpc.v1.cri\"]\n"

    @Test func anImportHidesTheMainFileBefore2() throws {
        let main =
            "version = 2\nimports = [\"conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"\(Self.directory)\"\n"
        let other = ["/c/conf.d/a.toml": "version = 2\n\(Self.criTable)sandbox_image = \"x/pause:1\"\n"]
        let old = try Self.imported(main: main, other, release: ContainerdRelease(major: 1, minor: 7))
        #expect(old.value(of: .configPath) == nil)
        let preparation = try ContainerdPreparation(old, registryDirectory: Self.directory)
        #expect(preparation.changes.map(\.path) == ["/c/conf.d/a.toml"])
        let new = try Self.imported(main: main, other, release: ContainerdRelease(major: 2, minor: 1))
        #expect(try ContainerdPreparation(new, registryDirectory: Self.directory).changes.isEmpty)
        // Not knowing which one it is, both must hold.
        let unknown = try Self.imported(main: main, other, release: nil)
        #expect(
            try ContainerdPreparation(unknown, registryDirectory: Self.directory).changes.map(\.path) == [
                "/c/conf.d/a.toml"
            ])
    }

    @Test func theImportThatHasTheValueIsChanged() throws {
        let main =
            "version = 3\nimports = ['conf.d/*.toml']\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '\(Self.directory)'\n"
        let other = [
            "/c/conf.d/z.toml":
                "version = 3\n[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true # why\n"
        ]
        let preparation = try ContainerdPreparation(
            try Self.imported(main: main, other, release: ContainerdRelease(major: 2, minor: 2)),
            registryDirectory: Self.directory)
        #expect(preparation.changes.map(\.path) == ["/c/conf.d/z.toml"])
        #expect(
            String(decoding: preparation.changes[0].new, as: UTF8.self).hasSuffix(
                "discard_unpacked_layers = false # why\n"))
    }

    @Test func aMissingImport() {
        #expect(throws: ContainerdConfigurationError.missingImport(path: "/c/none.toml", importedBy: "/c/config.toml"))
        {
            try Self.imported(main: "version = 2\nimports = [\"none.toml\"]\n", [:], release: nil)
        }
    }

    @Test func aCircleOfImports() throws {
        let files = try Self.imported(
            main: "version = 2\nimports = [\"a.toml\"]\n", ["/c/a.toml": "imports = [\"config.toml\", \"a.toml\"]\n"],
            release: nil)
        #expect(files.files.map(\.path) == ["/c/config.toml", "/c/a.toml"])
    }

    @Test func aListIsKeptWithAWarningWhereItIsMisread() throws {
        let bytes = try Self.fixture("v3-eks")
        let new = try ContainerdPreparation(
            try Self.files(bytes, release: ContainerdRelease(major: 2, minor: 1)), registryDirectory: Self.directory)
        #expect(
            String(decoding: new.result.main.document.bytes, as: UTF8.self).contains(
                "/etc/containerd/certs.d:/etc/docker/certs.d"))
        #expect(new.warnings.contains { $0.contains("use_local_image_pull") })
        let old = try ContainerdPreparation(
            try Self.files(bytes, release: ContainerdRelease(major: 2, minor: 0)), registryDirectory: Self.directory)
        #expect(!old.warnings.contains { $0.contains("use_local_image_pull") })
    }

    static let registryTable = "[plugins.\"io.containerd.grpc.v1.cri\".registry"

    /// With these the CRI plugin would not load any more, so nothing is written.
    @Test(arguments: [
        (registryTable + ".mirrors.\"docker.io\"]\nendpoint = [\"https://x\"]\n", "registry.mirrors", "line 2"),
        (registryTable + ".configs.\"a.example\".tls]\nca_file = \"/ca\"\n", "registry.configs", "line 2"),
    ])
    func oldTablesThatConflict(table: String, name: String, line: String) throws {
        let error = #expect(throws: ContainerdConfigurationError.self) {
            try ContainerdPreparation(
                try Self.files(Array("version = 2\n\(table)".utf8)), registryDirectory: Self.directory)
        }
        #expect(error?.description.contains(name) == true && error?.description.contains(line) == true)
    }

    /// Credentials, and on containerd 2 certificates, may stand beside config_path.
    @Test(arguments: [
        (".configs.\"a.example\".auth]\nusername = \"x\"\n", 1), (".mirrors]\n", 1),
        (".configs.\"a\".tls]\nca_file = \"/ca\"\n", 2),
    ])
    func oldTablesThatDoNotConflict(table: String, major: Int) throws {
        let text = "version = 2\n\(Self.registryTable)\(table)"
        let release = ContainerdRelease(major: major, minor: 0)
        let preparation = try ContainerdPreparation(
            try Self.files(Array(text.utf8), release: release), registryDirectory: Self.directory)
        #expect(preparation.result.isPrepared(for: Self.directory))
    }

    // MARK: The configuration in force

    static func images(_ text: String, version: Int = 3, _ major: Int, _ minor: Int) throws
        -> ContainerdConfigurationFiles
    {
        try files(
            Array("version = \(version)\n[plugins.'io.containerd.cri.v1.images']\n\(text)\n".utf8),
            release: ContainerdRelease(major: major, minor: minor))
    }

    @Test func theDefaultOfConfigPathFrom2_2() throws {
        #expect(try Self.images("", 2, 1).registryDirectories == [])
        #expect(try Self.images("", 2, 2).registryDirectories == [Self.directory, "/etc/docker/certs.d"])
        #expect(try Self.images("registry.config_path = ''", 2, 3).registryDirectories.count == 2)
        #expect(try Self.images("registry.mirrors.a.endpoint = ['b']", 2, 2).registryDirectories == [])
        #expect(try Self.images("registry.config_path = '/x'", 2, 2).registryDirectories == ["/x"])
    }

    @Test(arguments: [
        ("", true), ("use_local_image_pull = true", false), ("use_local_image_pull = false", true),
        ("disable_snapshot_annotations = false", false), ("disable_snapshot_annotations = true", true),
        ("discard_unpacked_layers = true", false), ("max_concurrent_downloads = 10", false),
        ("max_concurrent_downloads = 3", true), ("image_pull_with_sync_fs = true", false),
        ("registry.configs.a.auth.username = 'x'", false), ("registry.auths.a.username = 'x'", false),
    ])
    func transferServiceFrom2_1(text: String, isUsed: Bool) throws {
        #expect(try Self.images(text, 2, 0).usesTransferService == false)
        #expect(try Self.images(text, 2, 1).usesTransferService == isUsed)
        #expect(
            try Self.images(text, version: 2, 2, 3).usesTransferService == isUsed,
            "its own table in a file of version 2")
    }

    /// The default list is enough where CRI pulls by itself; the transfer service needs one directory.
    @Test func theDefaultListIsReplacedOnlyForTheTransferService() throws {
        func changes(_ text: String) throws -> [String] {
            try ContainerdPreparation(try Self.images(text, 2, 2), registryDirectory: Self.directory).changes.map {
                String(decoding: $0.new, as: UTF8.self)
            }
        }
        #expect(try changes("use_local_image_pull = true") == [])
        #expect(try changes("").first?.contains("config_path = \"\(Self.directory)\"") == true)
        // Keeping layers turns the service on.
        let kept = try changes("discard_unpacked_layers = true")
        #expect(kept.first?.contains("config_path = \"\(Self.directory)\"") == true)
        #expect(kept.first?.contains("discard_unpacked_layers = false") == true)
    }

    @Test func parallelLayerFetch() throws {
        let transfer = "[plugins.'io.containerd.transfer.v1.local']\nconcurrent_layer_fetch_buffer = 8388608"
        #expect(try Self.images(transfer, 2, 1).parallelLayerFetch?.line == 4)
        #expect(try Self.images("concurrent_layer_fetch_buffer = 8388608", 2, 1).parallelLayerFetch == nil)
        #expect(try Self.images("use_local_image_pull = true\n\(transfer)", 2, 1).parallelLayerFetch == nil)
        let local = "use_local_image_pull = true\nconcurrent_layer_fetch_buffer = 8388608"
        #expect(try Self.images(local, 2, 1).parallelLayerFetch?.line == 4)
        #expect(
            try Self.images("use_local_image_pull = true\nconcurrent_layer_fetch_buffer = 0", 2, 1).parallelLayerFetch
                == nil)
    }

    @Test func theOldTableCountsMoreInAFileOfVersion2() throws {
        let text =
            "version = 2\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/new'\n\(Self.registryTable)]\nconfig_path = '/old'\n"
        #expect(
            try Self.files(Array(text.utf8), release: ContainerdRelease(major: 2, minor: 0)).registryDirectories == [
                "/old"
            ])
        #expect(
            try Self.files(Array(text.utf8), release: ContainerdRelease(major: 1, minor: 7)).registryDirectories == [
                "/old"
            ])
    }

    // MARK: Bad input

    @Test(arguments: [
        ("version = 2\n[plugins\n", "line 2"), ("version = 2\n[a]\nx=1\n[a]\nx=2\n", "config.toml"),
        ("\u{feff}version = 2\n", "byte-order mark"),
        ("version = 9\n", "version 9"), ("x = 1\nx = 2\n", "config.toml"), ("\u{0}", "config.toml"),
        ("version = 2\nfoo", "config.toml"),
    ])
    func badFiles(text: String, message: String) {
        let error = #expect(throws: ContainerdConfigurationError.self) { try Self.files(Array(text.utf8)) }
        #expect(error?.description.contains(message) == true, "\(error?.description ?? "")")
    }

    // MARK: The whole way, on files

    @Test func dryRunShowsADiffThatPatchApplies() async throws {
        let scratch = ScratchDirectory()
        for name in Self.names where name != "v0-empty" {
            let original = try Self.fixture(name)
            let preparation = try ContainerdPreparation(try Self.files(original), registryDirectory: Self.directory)
            guard !preparation.changes.isEmpty else { continue }
            try Data(original).write(to: URL(fileURLWithPath: scratch.path + "/file"))
            try Data(preparation.diff.utf8).write(to: URL(fileURLWithPath: scratch.path + "/diff"))
            let outcome = try await HostCommand([
                "patch", "--binary", "-s", scratch.path + "/file", scratch.path + "/diff",
            ]).run()
            #expect(outcome.status == 0, "\(name): \(outcome.output)")
            #expect(
                FileManager.default.contents(atPath: scratch.path + "/file").map { Array($0) }
                    == preparation.changes[0].new, "\(name)")
        }
    }

    private static func preparer(_ scratch: ScratchDirectory, answers: Bool = true) -> ContainerdPreparer {
        var preparer = ContainerdPreparer(isAnswering: { answers }, log: { _ in })
        preparer.configurationFile = scratch.path + "/config.toml"
        preparer.registryDirectory = directory
        preparer.release = ContainerdRelease(major: 1, minor: 6)
        preparer.program = HostCommand(["containerd"])
        return preparer
    }

    @Test func writesBacksUpAndRestartsOnce() async throws {
        let scratch = ScratchDirectory()
        let original = String(decoding: try Self.fixture("v2-kubeadm"), as: UTF8.self)
        try scratch.write(["config.toml": original])
        var preparer = Self.preparer(scratch)
        preparer.restart = .shell("echo restarted >> \(scratch.path)/restarts")
        let first = try await preparer.run()
        #expect(first.isRestarted)
        #expect(scratch.files()["config.toml.spegel-backup"] == original)
        #expect(scratch.files()["restarts"] == "restarted\n")
        let second = try await preparer.run()
        #expect(second.preparation.changes.isEmpty)
        #expect(!second.isRestarted)
        #expect(scratch.files()["restarts"] == "restarted\n")
        #expect(scratch.entries() == ["config.toml", "config.toml.spegel-backup", "restarts"])
    }

    @Test func aContainerdThatDoesNotComeUpGetsItsFileBack() async throws {
        let scratch = ScratchDirectory()
        let original = String(decoding: try Self.fixture("v2-kubeadm"), as: UTF8.self)
        try scratch.write(["config.toml": original])
        var preparer = Self.preparer(scratch, answers: false)
        preparer.restartTimeout = .milliseconds(100)
        preparer.restart = .shell("echo restarted >> \(scratch.path)/restarts")
        await #expect(throws: ContainerdConfigurationError.self) { try await preparer.run() }
        #expect(scratch.files()["config.toml"] == original)
        #expect(scratch.files()["restarts"] == "restarted\nrestarted\n")
    }

    @Test func aRestartThatFailsGetsTheFileBack() async throws {
        let scratch = ScratchDirectory()
        let original = String(decoding: try Self.fixture("v2-gke"), as: UTF8.self)
        try scratch.write(["config.toml": original])
        var preparer = Self.preparer(scratch)
        preparer.restart = .shell("echo no such unit; exit 5")
        let error = await #expect(throws: ContainerdConfigurationError.self) { try await preparer.run() }
        #expect(error?.description.contains("no such unit") == true)
        #expect(scratch.files()["config.toml"] == original)
    }

    @Test func whatContainerdRefusesIsNotWritten() async throws {
        let scratch = ScratchDirectory()
        // TOML, but no configuration of containerd: 1.6 wants a number.
        let original = "version = 2\noom_score = \"low\"\n"
        try scratch.write(["config.toml": original])
        let error = await #expect(throws: ContainerdConfigurationError.self) { try await Self.preparer(scratch).run() }
        #expect(error?.description.contains("refuses") == true, "\(error?.description ?? "")")
        #expect(scratch.files() == ["config.toml": original])
    }

    @Test func anAbsentFileIsMade() async throws {
        let scratch = ScratchDirectory()
        let outcome = try await Self.preparer(scratch).run()
        #expect(outcome.backups.isEmpty)
        #expect(scratch.files()["config.toml"]?.hasPrefix("version = 2\n") == true)
        #expect(try await Self.preparer(scratch).run().preparation.changes.isEmpty)
    }

    @Test func aCommandThatHangsIsEnded() async throws {
        let outcome = try await HostCommand(["/bin/sh", "-c", "sleep 600"], timeout: .milliseconds(200)).run()
        #expect(outcome.status == 128 + SIGKILL)
    }

    @Test func aCommandThatDoesNotExist() async throws {
        #expect(try await HostCommand(["/no/such/program"]).run().status == 127)
    }
}
