import Foundation
import MirrorServer

/// A daemon as a process of its own, started from this same program.
final class DaemonProcess: Sendable {
    /// How it was started, as one would type it.
    let commandLine: String
    private let process: Process
    private let logPath: String

    /// Starts a daemon whose log goes to a file.
    init(arguments: [String], logPath: String) throws {
        guard let program = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") else {
            throw CommandFailure("cannot find this program's own file")
        }
        self.logPath = logPath
        commandLine = "spegel " + arguments.joined(separator: " ")
        guard FileManager.default.createFile(atPath: logPath, contents: nil),
            let log = FileHandle(forWritingAtPath: logPath)
        else { throw CommandFailure("cannot write \(logPath)") }
        process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = log
        try process.run()
        try log.close()
    }

    /// Ends the daemon as a crash would: at once, in the middle of whatever it does.
    func kill() {
        if process.isRunning { Foundation.kill(process.processIdentifier, SIGKILL) }
    }

    /// Waits until the daemon says that it listens.
    ///
    /// - Throws: ``CommandFailure`` with the end of the log when the daemon ends first or takes too long.
    func waitUntilListening(on address: ListenAddress) async throws {
        for _ in 0..<6000 {
            guard process.isRunning else { throw CommandFailure("the daemon did not start:\n\(endOfLog)") }
            // Its log says so; a connection could be to whoever else has the port.
            if let log = try? String(contentsOfFile: logPath, encoding: .utf8),
                log.contains(#""msg":"registry listening""#)
            {
                return
            }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw CommandFailure("the daemon does not listen on \(address):\n\(endOfLog)")
    }

    /// Asks the daemon to stop and waits for it.
    func stop() async {
        guard process.isRunning else { return }
        process.terminate()
        for _ in 0..<3500 where process.isRunning {
            try? await Task.sleep(for: .milliseconds(10))
        }
        kill()
    }

    private var endOfLog: String {
        let text = (try? String(contentsOfFile: logPath, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").suffix(5).joined(separator: "\n")
    }
}
