import CNodeSystem
import Foundation
import MirrorServer
import SpegelCommands
import Synchronization

/// A daemon as a process of its own.
final class DaemonProcess: Sendable {
    /// How it was started, as one would type it.
    let commandLine: String
    private let identifier: Int32
    private let logPath: String
    private let hasEnded = Mutex(false)

    /// Starts a daemon whose log goes to a file.
    ///
    /// - Throws: ``CommandFailure`` when the log cannot be written or the program cannot be started.
    init(program: String, arguments: [String], logPath: String) throws {
        self.logPath = logPath
        commandLine = "spegel " + arguments.joined(separator: " ")
        let log = open(logPath, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard log >= 0 else { throw CommandFailure("cannot write \(logPath)") }
        defer { close(log) }
        let environment = ProcessInfo.processInfo.environment.map { "\($0)=\($1)" }
        identifier = Self.withCStrings([program] + arguments) { texts in
            Self.withCStrings(environment) { variables in node_spawn(texts, variables, 0, log) }
        }
        guard identifier > 0 else { throw CommandFailure("cannot start \(program)") }
    }

    /// Calls `body` with pointers to texts and a null pointer after them, as exec takes them.
    private static func withCStrings<Result>(
        _ texts: [String], _ body: (UnsafePointer<UnsafePointer<CChar>?>?) -> Result
    ) -> Result {
        let copies = texts.map { strdup($0) }
        defer { for copy in copies { free(copy) } }
        return (copies.map { UnsafePointer($0) } + [nil]).withUnsafeBufferPointer { body($0.baseAddress) }
    }

    private var isRunning: Bool {
        hasEnded.withLock { hasEnded in
            var status: Int32 = 0
            if !hasEnded, waitpid(identifier, &status, WNOHANG) != 0 { hasEnded = true }
            return !hasEnded
        }
    }

    /// Ends the daemon as a crash would: at once, in the middle of whatever it does.
    func kill() {
        if isRunning { sendSignal(identifier, SIGKILL) }
    }

    /// Waits until the daemon of a node says that it listens.
    ///
    /// - Throws: ``CommandFailure`` with the end of the log when the daemon ends first or takes too long.
    func waitUntilListening(_ node: DemoNode) async throws {
        for _ in 0..<6000 {
            guard isRunning else { throw CommandFailure("the daemon did not start:\n\(endOfLog)") }
            // Another process may have the port.
            if let status = try? await node.report().status, status.processID == identifier,
                !status.registryAddresses.isEmpty
            {
                return
            }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw CommandFailure("the daemon does not listen on \(node.registry):\n\(endOfLog)")
    }

    /// Asks the daemon to stop and waits for it.
    func stop() async {
        guard isRunning else { return }
        sendSignal(identifier, SIGTERM)
        for _ in 0..<3500 where isRunning {
            try? await Task.sleep(for: .milliseconds(10))
        }
        kill()
    }

    private var endOfLog: String {
        let text = (try? String(contentsOfFile: logPath, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").suffix(5).joined(separator: "\n")
    }
}

/// `kill(2)`, whose name the class has for something else.
private func sendSignal(_ process: Int32, _ signal: Int32) {
    _ = kill(process, signal)
}
