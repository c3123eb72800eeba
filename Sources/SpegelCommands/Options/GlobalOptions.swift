import ArgumentParser
import Logging

/// Options of every subcommand; they may stand before or after its name.
struct GlobalOptions: ParsableArguments {
    @Option(help: "DEBUG, INFO, WARN or ERROR.", transform: LogLevelOption.parse)
    var logLevel: Logger.Level = .info

    @Option(help: "json, or text for people at a terminal.", transform: LogFormatOption.parse)
    var logFormat: LogFormat = .json
}

/// Reads the names of log formats.
enum LogFormatOption {
    /// The transform of the option.
    @Sendable static func parse(_ text: String) throws -> LogFormat {
        guard let format = LogFormat(rawValue: text.lowercased()) else { throw OptionError("json or text") }
        return format
    }
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
