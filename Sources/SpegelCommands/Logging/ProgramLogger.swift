import Logging

extension Logger {
    /// The logger of the program: lines on standard error.
    static func program(_ options: GlobalOptions) -> Logger {
        program(options.logLevel, format: options.logFormat)
    }

    private static func program(_ level: Logger.Level, format: LogFormat = .json) -> Logger {
        let control = LogControl(level: level)
        return Logger(label: "spegel") { _ in
            LineLogHandler(control: control, format: format, sink: LogQueue.standardError)
        }
    }

    /// The logger of the daemon, whose level `control` changes.
    ///
    /// - Parameter lowest: the lowest level that is logged, whatever the control says: libraries log each of their steps
    ///   at DEBUG.
    static func daemon(_ control: LogControl, lowest: Logger.Level = .trace, format: LogFormat) -> Logger {
        Logger(label: "spegel") { _ in
            LineLogHandler(control: control, lowest: lowest, format: format, sink: LogQueue.standardError)
        }
    }

    /// The logger of commands for people, who are told of errors in other ways; only `--log-level DEBUG` says more.
    package static func quiet(_ level: Logger.Level) -> Logger {
        program(level == .info ? .error : level)
    }
}
