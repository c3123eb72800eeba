import Logging

extension Logger {
    /// The logger of the program: JSON lines on standard error.
    static func program(_ level: Logger.Level) -> Logger {
        Logger(label: "spegel") { _ in JSONLogHandler(logLevel: level) }
    }

    /// The logger of commands for people, who are told of errors in other ways; only `--log-level DEBUG` says more.
    package static func quiet(_ level: Logger.Level) -> Logger {
        program(level == .info ? .error : level)
    }
}
