import Logging
import ServiceLifecycle
import UnixSignals

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Changes the log level by signals while the daemon runs: SIGUSR1 sets DEBUG, SIGUSR2 returns to `--log-level`.
struct LogLevelSignals: Service {
    let control: LogControl
    let logger: Logger

    /// Ignores both signals until ``run()`` handles them; by default they would end the process.
    static func ignore() {
        signal(SIGUSR1, SIG_IGN)
        signal(SIGUSR2, SIG_IGN)
    }

    func run() async throws {
        let signals = await UnixSignalsSequence(trapping: .sigusr1, .sigusr2)
        await cancelWhenGracefulShutdown {
            for await signal in signals {
                control.level = signal == .sigusr1 ? .debug : control.initialLevel
                logger.notice(
                    "the log level was changed by a signal",
                    metadata: ["log_level": "\(LineLogHandler.name(of: control.level))", "signal": "\(signal)"])
            }
        }
    }
}
