import ContainerdTestKit
import Foundation
import Testing

@testable import ContainerdContentStore

/// What operators are told of containerd's configuration.
@Suite(.timeLimit(.minutes(20))) struct ConfigurationCheckTests {
    @Test func aRunningContainerdIsAsked() async throws {
        var options = ContainerdDaemon.Options()
        options.cri = true
        options.criSettings = ["containerd": ["  discard_unpacked_layers = true"]]
        let bad = try await ContainerdDaemon.start(options)
        let findings = try await check(bad)
        #expect(findings.map(\.severity) == [.problem, .problem])
        #expect(findings.allSatisfy { $0.explanation.contains("containerd itself") }, "\(findings)")
        #expect(
            findings[0].lines == [
                #"[plugins."io.containerd.grpc.v1.cri".containerd]"#, "  discard_unpacked_layers = false",
            ])
        #expect(findings[1].lines.contains(#"  config_path = "/etc/containerd/certs.d""#))
        try await bad.stop(SIGKILL)

        // The very lines, put into the configuration, make it good.
        options.criSettings = ["containerd": [findings[0].lines[1]], "registry": [findings[1].lines[1]]]
        let good = try await ContainerdDaemon.start(options)
        #expect(try await check(good).map(\.severity) == [.good, .good])
        try await good.stop(SIGKILL)
    }

    @Test func withoutTheRuntimeInterfaceTheFileIsRead() async throws {
        let daemon = try await ContainerdDaemon.start()
        let findings = try await check(daemon)
        #expect(findings.map(\.severity) == [.good, .problem])
        #expect(findings[1].explanation.contains(daemon.configurationPath))
        try await daemon.stop(SIGKILL)
    }

    private func check(_ daemon: ContainerdDaemon) async throws -> [ContainerdFinding] {
        let store = makeStore(daemon)
        store.start()
        try await store.waitUntilIndexed()
        // The CRI plugin says that it is not ready for a moment after the start.
        let findings = try await eventually("the runtime tells its configuration") {
            let findings = await store.checkConfiguration()
            return daemon.hasRuntimeInterface && !findings.contains { $0.explanation.contains("itself") }
                ? nil : findings
        }
        await store.shutdown()
        return findings
    }

    @Test func filesOfBothVersionsAreRead() throws {
        let old = """
            version = 2
            [plugins]
              [plugins."io.containerd.grpc.v1.cri"]
                [plugins."io.containerd.grpc.v1.cri".containerd]
                  discard_unpacked_layers = true # saves space
                [plugins."io.containerd.grpc.v1.cri".registry]
                  config_path = "/etc/containerd/certs.d"
            """
        let new = """
            version = 3
            [plugins.'io.containerd.cri.v1.images']
              discard_unpacked_layers = true
            [plugins.'io.containerd.cri.v1.images'.registry]
              config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'
            """
        for (text, path) in [(old, "/etc/containerd/certs.d"), (new, "/etc/containerd/certs.d:/etc/docker/certs.d")] {
            let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).toml")
            try Data(text.utf8).write(to: file)
            defer { try? FileManager.default.removeItem(at: file) }
            let settings = try #require(ContainerdConfigurationCheck.settingsOfFile(file.path))
            #expect(settings.discardsUnpackedLayers == true)
            #expect(settings.configPath == path)
        }
        #expect(ContainerdConfigurationCheck.settingsOfFile("/nonexistent/config.toml") == nil)
        let unknown = ContainerdConfigurationCheck.findings([], isVersion2: true, file: "/nonexistent/config.toml")
        #expect(unknown.map(\.severity) == [.unknown, .unknown])
        #expect(unknown[0].lines[0] == "[plugins.'io.containerd.cri.v1.images']")
    }

    @Test func tomlIsReadAsFarAsNeeded() {
        let toml = TOMLSettings(
            """
            a = "x # not a comment" # a comment
            'b.c' = 'y=z'
            [ t . "u.v" ]
            d = 5
            e = [
              "several", # lines
            ]
            broken
            = nothing
            [[list]]
            f = true
            """)
        #expect(toml["a"] == "x # not a comment")
        #expect(toml["b.c"] == "y=z")
        #expect(toml["t", "u.v", "d"] == "5")
        #expect(toml["list", "f"] == "true")
        #expect(toml["t", "u.v", "broken"] == nil)
        var generator = SeededGenerator(state: 67)
        let alphabet = Array("[]\"'=#. \n\tabé")
        for _ in 0..<500 {
            let text = String((0..<80).map { _ in alphabet.randomElement(using: &generator) ?? "a" })
            _ = TOMLSettings(text)
        }
    }
}
