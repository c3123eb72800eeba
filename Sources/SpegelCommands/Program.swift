import ArgumentParser
import Logging
import NodeConfiguration

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The `spegel` program: everything but its entry point.
public enum Program {
    /// Parses the arguments, runs the subcommand and returns the exit status.
    ///
    /// Status 0 is success, 64 a usage error, and 1 anything else that went wrong; errors end up as one line on standard
    /// error.
    ///
    /// - Parameters:
    ///   - arguments: The arguments without the program's name.
    ///   - environment: The process's environment, which gives the options that are not among the arguments.
    public static func run(arguments: [String], environment: [String: String]) async -> Int32 {
        let status = await start(arguments: arguments, environment: environment)
        LogQueue.standardError.flush(atMost: flushTimeout)
        return status
    }

    /// How long the last log lines may take to be written, in seconds.
    private static let flushTimeout = 2.0

    private static func start(arguments: [String], environment: [String: String]) async -> Int32 {
        // A client or a log reader that goes away is an error of that write, not the end of the process.
        signal(SIGPIPE, SIG_IGN)
        let normalized = ArgumentNormalizer(catalogue: .spegel).normalize(arguments, environment: environment)
        var command: any ParsableCommand
        do {
            command = try SpegelCommand.parseAsRoot(normalized.arguments)
        } catch {
            return report(
                parseError: error, variables: normalized.variables,
                command: Self.command(in: normalized.arguments))
        }
        if command is SpegelCommand {
            printError(SpegelCommand.helpMessage())
            return ExitCode.validationFailure.rawValue
        }
        if command is DHTCommand {
            printError(SpegelCommand.helpMessage(for: DHTCommand.self))
            return ExitCode.validationFailure.rawValue
        }
        do {
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
            return 0
        } catch let exit as ExitCode {
            return exit.rawValue
        } catch let failure as CommandFailure {
            printError("spegel: \(failure)")
            return failure.status
        } catch  where SpegelCommand.exitCode(for: error).isSuccess {
            // This is how the parser has help printed.
            print(
                OptionHelp.annotate(
                    SpegelCommand.fullMessage(for: error), command: Self.command(in: normalized.arguments)))
            return 0
        } catch {
            printError("spegel: \(error)")
            return 1
        }
    }

    /// The subcommand that arguments name.
    private static func command(in arguments: [String]) -> String? {
        arguments.first { OptionCatalogue.spegel.commands[$0] != nil }
    }

    private static func report(
        parseError error: any Error, variables: [String: String], command: String?
    ) -> Int32 {
        let status = SpegelCommand.exitCode(for: error)
        let message = SpegelCommand.fullMessage(for: error)
        guard !status.isSuccess else {
            print(OptionHelp.annotate(message, command: command))
            return 0
        }
        printError(message)
        for (option, variable) in variables.sorted(by: { $0.key < $1.key })
        where message.contains("--\(option) ") || message.contains("--\(option)'") {
            printError("Note: --\(option) was taken from the environment variable \(variable).")
        }
        return status.rawValue
    }

    /// Writes one line to standard error.
    static func printError(_ line: String) {
        LogQueue.standardError.flush(atMost: flushTimeout)
        FileDescriptorSink(descriptor: 2).write(line: Array((line + "\n").utf8))
    }
}

/// What stopped a subcommand, in words for the person who started it.
package struct CommandFailure: Error, CustomStringConvertible {
    package var description: String
    /// The process's exit status.
    package var status: Int32 = 1

    package init(_ description: String, status: Int32 = 1) {
        self.description = description
        self.status = status
    }
}
