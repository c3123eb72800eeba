import Foundation
import RegistryClient
import TestSupport
import Testing

@testable import SpegelCommands

/// Where `pull` finds credentials, and its options.
@Suite struct PullCommandTests {
    private func authorization(
        _ configuration: String, for authority: String, directory: String? = nil
    ) throws -> String? {
        let folder = try TemporaryDirectory()
        try Data(configuration.utf8).write(to: URL(fileURLWithPath: folder.path("config.json")))
        return try MirrorCredentials.find(
            for: RegistryEndpoint(authority: authority), directory: directory,
            environment: ["DOCKER_CONFIG": folder.path])?.authorization
    }

    @Test(
        arguments: [
            ("mirror.example:5000", #"{"auths":{"mirror.example:5000":{"auth":"YTpi"}}}"#, "Basic YTpi"),
            ("mirror.example", #"{"auths":{"https://mirror.example/v1/":{"auth":"YTpi"}}}"#, "Basic YTpi"),
            ("mirror.example", #"{"auths":{"Mirror.Example":{"username":"a","password":"b"}}}"#, "Basic YTpi"),
            ("mirror.example", #"{"auths":{"mirror.example:5000":{"auth":"YTpi"}}}"#, nil),
            ("mirror.example", #"{"auths":{"mirror.example":{}},"credsStore":"pass"}"#, nil),
            ("mirror.example", "{}", nil),
        ] as [(String, String, String?)])
    func dockerConfiguration(authority: String, configuration: String, expected: String?) throws {
        #expect(try authorization(configuration, for: authority) == expected)
    }

    @Test(arguments: ["{", #"{"auths":{"a.example":{"auth":"???"}}}"#, #"{"auths":{"a.example":{"auth":"YQ=="}}}"#])
    func badDockerConfiguration(text: String) {
        let error = #expect(throws: CommandFailure.self) { try authorization(text, for: "a.example") }
        #expect(error.map { "\($0)".contains("config.json") } ?? false)
    }

    @Test func directoryOfASecret() throws {
        let secret = try TemporaryDirectory()
        try Data("a\n".utf8).write(to: URL(fileURLWithPath: secret.path("username")))
        try Data("b\n".utf8).write(to: URL(fileURLWithPath: secret.path("password")))
        #expect(try authorization("{}", for: "a.example", directory: secret.path) == "Basic YTpi")
        #expect(throws: CommandFailure.self) {
            try authorization("{}", for: "a.example", directory: secret.path("absent"))
        }
    }

    @Test(arguments: [
        ["--username", "a"], ["--password-stdin"], ["--username", "a:b", "--password-stdin"],
        ["--platform", "linux"], ["--platform", "linux/arm64", "--all-platforms"],
    ])
    func badOptions(arguments: [String]) {
        let normalized = ArgumentNormalizer(catalogue: .spegel).normalize(["pull", "a"] + arguments, environment: [:])
        #expect(throws: (any Error).self) { try SpegelCommand.parseAsRoot(normalized.arguments) }
    }

    /// `USERNAME` is the user's own name in many shells.
    @Test func theEnvironmentGivesNoUserName() {
        let normalized = ArgumentNormalizer(catalogue: .spegel).normalize(
            ["pull", "a"], environment: ["USERNAME": "alice", "PASSWORD_STDIN": "true", "PLATFORM": "linux/arm64"])
        #expect(normalized.arguments == ["pull", "--platform=linux/arm64", "a"])
    }

    @Test(arguments: [
        ("nginx", "docker.io/library/nginx:latest"), ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("ghcr.io/acme/tool:v1", "ghcr.io/acme/tool:v1"),
        ("sha256:" + String(repeating: "0", count: 64), "sha256:" + String(repeating: "0", count: 64)),
        ("nginx@sha256:" + String(repeating: "0", count: 64), "sha256:" + String(repeating: "0", count: 64)),
    ])
    func keysOfTheDHT(text: String, key: String) throws {
        #expect(try DHTKey.parse(text) == key)
    }

    @Test func aKeyThatIsNone() { #expect(throws: OptionError.self) { try DHTKey.parse("UPPER CASE") } }
}
