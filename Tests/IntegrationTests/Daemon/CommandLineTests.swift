import Foundation
import TestSupport
import Testing

/// The program as a shell sees it: exit statuses, and where its words go.
@Suite struct CommandLineTests {
    private func spegel(_ arguments: String..., environment: [String: String] = [:]) async throws -> Command.Result {
        try await Command.run([try Project.program()] + arguments, environment: environment)
    }

    @Test func version() async throws {
        let text = try await spegel("version")
        #expect(text.status == .exited(0))
        #expect(text.output.hasPrefix("spegel "))
        let json = try await spegel("version", environment: ["FORMAT": "json"])
        #expect(json.status == .exited(0))
        let object = try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: String]
        #expect(object?["version"]?.isEmpty == false)
        #expect(text.errors + json.errors == "")
    }

    @Test func helpGoesToStandardOutput() async throws {
        let help = try await spegel("registry", "--help")
        #expect(help.status == .exited(0))
        #expect(help.output.contains("--mirror-resolve-timeout"))
        #expect(help.errors == "")
    }

    @Test func usageErrorsExitWith64() async throws {
        let flag = try await spegel("registry", "--registry-addr", "nonsense")
        #expect(flag.status == .exited(64))
        #expect(flag.errors.contains("'nonsense'") && flag.errors.contains("--registry-addr"))
        let variable = try await spegel("registry", environment: ["MIRROR_RESOLVE_TIMEOUT": "soon"])
        #expect(variable.status == .exited(64))
        #expect(variable.errors.contains("environment variable MIRROR_RESOLVE_TIMEOUT"))
        let none = try await spegel()
        #expect(none.status == .exited(64))
        #expect(none.errors.contains("SUBCOMMANDS"))
        #expect(flag.output + variable.output + none.output == "")
    }
}
