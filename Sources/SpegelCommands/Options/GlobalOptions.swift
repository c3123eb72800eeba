import ArgumentParser
import Logging

/// Options of every subcommand; they may stand before or after its name.
struct GlobalOptions: ParsableArguments {
    @Option(help: "DEBUG, INFO, WARN or ERROR.", transform: LogLevelOption.parse)
    var logLevel: Logger.Level = .info
}

/// Reads the names of log levels.
package enum LogLevelOption {
    /// The transform of the option.
    @Sendable package static func parse(_ text: String) throws -> Logger.Level {
        switch text.uppercased() {
        case "DEBUG": return .debug
        case "INFO": return .info
        case "WARN", "WARNING": return .warning
        case "ERROR": return .error
        default: throw OptionError("DEBUG, INFO, WARN or ERROR")
        }
    }
}
