import ArgumentParser
import Testing

@testable import SpegelCommands

/// The help page names each option's default and environment variable.
@Suite struct OptionHelpTests {
    /// What has to be given besides, so that a command can be parsed.
    private static let required: [String: [String]] = [
        "configuration": ["--mirror-targets=http://127.0.0.1:1"], "cleanup": ["--addr=:1"],
        "cleanup-wait": ["--probe-endpoint=host:1"], "pull": ["docker.io/library/a:1"],
    ]

    private func parsed(_ command: String, _ arguments: [String]) throws -> String {
        let words = command == "dht" ? ["dht", "peers"] : [command]
        var text = ""
        dump(try SpegelCommand.parseAsRoot(words + (Self.required[command] ?? []) + arguments), to: &text)
        // Where a value came from is not what it is.
        return text.split(separator: "\n").filter { !$0.contains("argumentPosition") && !$0.contains("Origin") }
            .joined(separator: "\n")
    }

    @Test func defaultsAreThoseOfTheCommands() throws {
        for (command, defaults) in OptionCatalogue.defaults {
            let without = try parsed(command, [])
            for (option, value) in defaults {
                #expect(OptionCatalogue.spegel.commands[command]?[option] != nil, "--\(option) of \(command)")
                #expect(try parsed(command, ["--\(option)=\(value)"]) == without, "--\(option) of \(command)")
            }
        }
    }

    @Test func everyOptionHasItsVariableOnThePage() throws {
        for (command, options) in OptionCatalogue.spegel.commands where command != "dht" {
            let type = try #require(
                SpegelCommand.configuration.subcommands.first { $0.configuration.commandName == command })
            let page = OptionHelp.annotate(SpegelCommand.helpMessage(for: type), command: command)
            for option in options.keys where !OptionCatalogue.withoutVariable.contains(option) {
                #expect(
                    page.contains("Variable: \(ArgumentNormalizer.variable(for: option))"), "--\(option) of \(command)")
            }
            for (option, value) in OptionCatalogue.defaults[command] ?? [:] {
                #expect(
                    page.contains("Default: \(value). Variable: \(ArgumentNormalizer.variable(for: option))"),
                    "--\(option) of \(command)")
            }
        }
    }
}
