import ArgumentParser
import Logging
import MirrorServer
import NodeConfiguration
import Testing

@testable import SpegelCommands

@Suite struct OptionParsingTests {
    private func parse(_ arguments: [String], environment: [String: String] = [:]) throws -> any ParsableCommand {
        let normalized = ArgumentNormalizer(catalogue: .spegel).normalize(arguments, environment: environment)
        return try SpegelCommand.parseAsRoot(normalized.arguments)
    }

    @Test func defaultsOfRegistry() throws {
        let command = try #require(try parse(["registry"]) as? RegistryCommand)
        #expect(command.global.logLevel == .info)
        #expect(command.store == .containerd)
        #expect(command.registryAddr == ListenAddress(host: nil, port: 5000))
        #expect(command.metricsAddr == ListenAddress(host: nil, port: 9090))
        #expect(command.routerAddr == ListenAddress(host: nil, port: 5001))
        #expect(command.mirrorResolveTimeout == .milliseconds(20))
        #expect(command.mirrorResolveRetries == 3)
        #expect(command.debugWebEnabled)
        #expect(command.mirroredRegistries.isEmpty)
        #expect(command.dataDir == "")
    }

    /// The arguments of a node in the field.
    @Test func commandLineOfADaemonSet() throws {
        let arguments = [
            "registry", "--log-level=DEBUG", "--mirror-resolve-retries=5", "--mirror-resolve-timeout=1.5s",
            "--registry-addr=:5000", "--router-addr=:5001", "--metrics-addr=:9090", "--mirrored-registries",
            "https://docker.io", "https://ghcr.io:443", "--containerd-sock=/run/c.sock",
            "--containerd-namespace=k8s.io",
            "--bootstrap-kind=dns", "--dns-bootstrap-domain=spegel-bootstrap.spegel.svc.cluster.local.",
            "--debug-web-enabled=false",
        ]
        let command = try #require(
            try parse(arguments, environment: ["DATA_DIR": "/var/lib/spegel"]) as? RegistryCommand)
        #expect(command.global.logLevel == .debug)
        #expect(command.mirrorResolveRetries == 5)
        #expect(command.mirrorResolveTimeout == .milliseconds(1500))
        #expect(command.mirroredRegistries.map(\.description) == ["https://docker.io", "https://ghcr.io:443"])
        #expect(command.bootstrap.bootstrapKind == .dns)
        #expect(!command.debugWebEnabled)
        #expect(command.dataDir == "/var/lib/spegel")
    }

    @Test func optionWinsOverVariable() throws {
        let environment = ["REGISTRY_ADDR": ":1", "LOG_LEVEL": "WARN", "STORE": "./layout"]
        let command = try #require(
            try parse(["--log-level", "ERROR", "registry", "--registry-addr", ":2"], environment: environment)
                as? RegistryCommand)
        #expect(command.registryAddr.port == 2)
        #expect(command.global.logLevel == .error)
        #expect(command.store == .onDisk(path: "./layout"))
    }

    @Test(arguments: [
        (["registry", "--registry-addr", "5000"], ["--registry-addr", "5000", ":5000"]),
        (["registry", "--registry-addr", ":70000"], [":70000", "65535"]),
        (["registry", "--mirror-resolve-timeout", "20"], ["--mirror-resolve-timeout", "'20'", "20ms"]),
        (["registry", "--mirror-resolve-retries", "0"], ["--mirror-resolve-retries", "'0'", "from 1 to 1000"]),
        (["registry", "--debug-web-enabled=maybe"], ["--debug-web-enabled", "maybe", "true or false"]),
        (["registry", "--bootstrap-kind", "magic"], ["--bootstrap-kind", "magic", "dns, http or static"]),
        (["registry", "--bootstrap-kind", "dns"], ["--bootstrap-kind dns", "--dns-bootstrap-domain"]),
        (["registry", "--mirrored-registries", "docker.io"], ["--mirrored-registries", "docker.io", "https://HOST"]),
        (["registry", "--store", "dockerd"], ["--store", "dockerd", "containerd"]),
        (["registry", "--metrics-addr", ":5000"], ["--metrics-addr", "--registry-addr"]),
        (["--log-level", "LOUD", "version"], ["--log-level", "LOUD", "DEBUG, INFO, WARN or ERROR"]),
        (["version", "--format", "xml"], ["--format", "xml", "text or json"]),
        (["configuration"], ["--mirror-targets"]),
        (["configuration", "--mirror-targets", "http://a/b"], ["--mirror-targets", "http://a/b", "without path"]),
        (["cleanup"], ["--addr"]),
        (["cleanup-wait", "--probe-endpoint", ":80"], ["--probe-endpoint", ":80", "host"]),
        (["verify"], ["path"]),
        (["registry", "--nonsense"], ["--nonsense"]),
        (["nonsense"], ["nonsense"]),
        (["registry", "surplus"], ["surplus"]),
        (["registry", "--registry-addr"], ["--registry-addr"]),
    ])
    func badValuesAreUsageErrors(arguments: [String], mentioned: [String]) throws {
        do {
            _ = try parse(arguments)
            Issue.record("\(arguments) were accepted")
        } catch {
            #expect(SpegelCommand.exitCode(for: error) == .validationFailure)
            let message = SpegelCommand.fullMessage(for: error)
            for part in mentioned {
                #expect(message.contains(part), "\(part) in \(message)")
            }
        }
    }

    @Test(
        arguments: [
            ("20ms", 20_000_000), ("1.5s", 1_500_000_000), ("2m", 120_000_000_000), ("1h30m", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000), ("100us", 100_000), ("7µs", 7000), ("3ns", 3), ("0", 0), ("0s", 0),
            ("1.0000000001s", 1_000_000_000),
        ] as [(String, Int64)])
    func durations(text: String, nanoseconds: Int64) {
        #expect(DurationOption.parse(text) == .nanoseconds(nanoseconds))
    }

    @Test(arguments: [
        "", "20", "ms", "1 s", "-1s", "1s ", "1.2.3s", "1d", "9999999999999999999s", "10000000h", ".s", "1e3s", "٣s",
    ])
    func badDurations(text: String) {
        #expect(DurationOption.parse(text) == nil)
    }

    @Test(arguments: ["0s", "25h", "0"])
    func durationsOutOfBounds(text: String) {
        #expect(throws: OptionError.self) { try DurationOption.positive(text) }
    }

    @Test(arguments: [
        ("https://docker.io", "docker.io"), ("http://localhost:5000", "localhost:5000"), ("HTTPS://GHCR.io", "ghcr.io"),
        ("http://[fd00::1]:5000", "[fd00::1]:5000"), ("http://[fd00::1]", "[fd00::1]"), ("_default", "_default"),
        ("*", "_default"),
    ])
    func registryURLs(text: String, host: String) throws {
        #expect(try RegistryURL(parsing: text).host == host)
    }

    @Test(arguments: [
        "", "docker.io", "ftp://a", "https://", "https://a/", "https://a?b", "https://u@a", "https://a:0", "https://a:",
        "https://a:x",
        "https://a:70000", "https://-a", "https://a..b", "https://[::1", "https://[a]", "https://a b", "https://a#b",
    ])
    func badRegistryURLs(text: String) {
        #expect(throws: OptionError.self) { try RegistryURL.parse(text) }
    }
}
