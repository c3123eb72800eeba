import ArgumentParser
import Foundation
import Testing

@testable import SpegelCommands

@Suite struct ArgumentNormalizerTests {
    private func normalize(_ arguments: String..., environment: [String: String] = [:]) -> [String] {
        ArgumentNormalizer(catalogue: .spegel).normalize(arguments, environment: environment).arguments
    }

    @Test func valuesAreAttached() {
        #expect(normalize("registry", "--registry-addr", ":80") == ["registry", "--registry-addr=:80"])
        #expect(normalize("registry", "--registry-addr=:80") == ["registry", "--registry-addr=:80"])
        #expect(normalize("registry", "--data-dir", "") == ["registry", "--data-dir="])
    }

    @Test func listsTakeSeveralValuesAndRepeatedFlags() {
        let expected = ["registry", "--registry-filters=a", "--registry-filters=b", "--registry-filters=c"]
        #expect(normalize("registry", "--registry-filters", "a", "b", "--registry-filters=c") == expected)
        #expect(normalize("registry", "--registry-filters", "a", "--registry-filters", "b", "c") == expected)
    }

    @Test func listsMayBeEmptyAndThenHideTheEnvironment() {
        let environment = ["REGISTRY_FILTERS": "x"]
        #expect(normalize("registry", "--registry-filters", environment: environment) == ["registry"])
        #expect(
            normalize("registry", "--registry-filters", "--registry-addr=:1", environment: environment)
                == ["registry", "--registry-addr=:1"])
    }

    @Test func booleansNeedNoValue() {
        #expect(normalize("registry", "--debug-web-enabled") == ["registry", "--debug-web-enabled=true"])
        #expect(normalize("registry", "--debug-web-enabled=false") == ["registry", "--debug-web-enabled=false"])
        #expect(
            normalize("registry", "--debug-web-enabled", "--log-level", "WARN")
                == ["--log-level=WARN", "registry", "--debug-web-enabled=true"])
    }

    @Test func logLevelStandsAnywhere() {
        #expect(normalize("--log-level", "DEBUG", "version") == ["--log-level=DEBUG", "version"])
        #expect(normalize("version", "--log-level", "DEBUG") == ["--log-level=DEBUG", "version"])
        #expect(normalize("--generate-completion-script", "fish") == ["--generate-completion-script=fish"])
        #expect(normalize("version", environment: ["LOG_LEVEL": "WARN"]) == ["--log-level=WARN", "version"])
    }

    @Test func environmentGivesWhatTheCommandLineDoesNot() {
        let environment = [
            "REGISTRY_ADDR": ":1", "METRICS_ADDR": ":2", "MIRRORED_REGISTRIES": "https://a, https://b", "DATA_DIR": "",
            "FORMAT": "json",
        ]
        let result = ArgumentNormalizer(catalogue: .spegel)
            .normalize(["registry", "--metrics-addr=:3"], environment: environment)
        #expect(
            result.arguments == [
                "registry", "--mirrored-registries=https://a", "--mirrored-registries=https://b", "--registry-addr=:1",
                "--metrics-addr=:3",
            ])
        #expect(
            result.variables == [
                "registry-addr": "REGISTRY_ADDR", "mirrored-registries": "MIRRORED_REGISTRIES",
            ])
    }

    @Test func quotedFieldsKeepTheirCommas() {
        #expect(
            ArgumentNormalizer.commaSeparated(#"a{1,b, "x{1,2}" ,"say ""hi""",,"#) == [
                "a{1", "b", "x{1,2}", #"say "hi""#,
            ])
    }

    @Test func unknownThingsArePassedOn() {
        #expect(normalize("registry", "--nonsense", "1", "-x") == ["registry", "--nonsense", "1", "-x"])
        #expect(normalize("nonsense", "--registry-addr", ":1") == ["nonsense", "--registry-addr", ":1"])
        #expect(normalize("registry", "--registry-addr") == ["registry", "--registry-addr"])
        #expect(normalize("verify", "--", "--log-level") == ["verify", "--", "--log-level"])
        #expect(normalize() == [])
    }

    /// The catalogue is written by hand beside the parser's declarations; this keeps them equal.
    @Test func catalogueMatchesTheParser() throws {
        struct Tool: Decodable {
            struct Command: Decodable {
                struct Argument: Decodable {
                    struct Name: Decodable {
                        var kind: String
                        var name: String
                    }
                    var kind: String
                    var isRepeating: Bool
                    var names: [Name]?
                }
                var commandName: String
                var subcommands: [Command]?
                var arguments: [Argument]?
            }
            var command: Command
        }
        let tool = try JSONDecoder().decode(Tool.self, from: Data(SpegelCommand._dumpHelp().utf8))
        func options(_ command: Tool.Command) -> [String: Bool] {
            var found: [String: Bool] = [:]
            for argument in command.arguments ?? [] where argument.kind != "positional" {
                for name in argument.names ?? [] where name.kind == "long" && !["help", "version"].contains(name.name) {
                    found[name.name] = argument.isRepeating
                }
            }
            return found
        }
        let catalogue = OptionCatalogue.spegel
        #expect(Set(options(tool.command).keys) == Set(catalogue.global.keys))
        let commands = (tool.command.subcommands ?? []).filter { $0.commandName != "help" }
        #expect(Set(commands.map(\.commandName)) == Set(catalogue.commands.keys))
        for command in commands {
            var known = try #require(catalogue.commands[command.commandName])
            known.merge(catalogue.global) { own, _ in own }
            #expect(options(command) == known.mapValues { $0 == .list }, "\(command.commandName)")
        }
    }
}
