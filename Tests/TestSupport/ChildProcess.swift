import Foundation
import Synchronization

/// A program started by a test, which does not outlive it.
///
/// Its output goes to files, so that it never waits for a reader and can be shown when a test fails.
package final class ChildProcess: Sendable {
    package let name: String
    package let pid: pid_t
    /// The files of its output.
    package let standardOutput: String
    package let standardError: String
    private let input: Int32?
    private let exit: Exit
    private let directory: TemporaryDirectory?

    /// How a process ended.
    package enum Status: Equatable, Sendable {
        case exited(Int32)
        case signalled(Int32)
    }

    /// Where its standard input comes from.
    package enum Input: Sendable {
        /// A file or FIFO; opened for both directions, so that a FIFO has no end.
        case file(String)
        /// ``ChildProcess/write(line:)``.
        case pipe

        /// Nothing.
        package static let none = Input.file("/dev/null")
    }

    private final class Exit: Sendable {
        private struct State {
            var status: Status?
            var waiting: [CheckedContinuation<Status, Never>] = []
        }
        private let state = Mutex(State())

        var status: Status? { state.withLock { $0.status } }

        /// Waits for the end of a process, and blocks meanwhile.
        ///
        /// It is reaped and sent signals under one lock, so that no signal meets another that has got its number.
        func awaitEnd(of pid: pid_t) {
            waitForEnd(of: pid)
            let (status, waiting) = state.withLock { state -> (Status, [CheckedContinuation<Status, Never>]) in
                let code = reap(pid)
                let status: Status = code >= 0 ? .exited(code) : .signalled(-code)
                let waiting = state.waiting
                state.status = status
                state.waiting = []
                return (status, waiting)
            }
            for continuation in waiting { continuation.resume(returning: status) }
        }

        func send(_ signal: Int32, to pid: pid_t) {
            state.withLock { state in
                guard state.status == nil else { return }
                kill(pid, signal)
            }
        }

        func wait() async -> Status {
            await withCheckedContinuation { continuation in
                let status = state.withLock { state in
                    if state.status == nil { state.waiting.append(continuation) }
                    return state.status
                }
                if let status { continuation.resume(returning: status) }
            }
        }
    }

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - arguments: The program, looked up on the `PATH` unless it has a slash, and its arguments.
    ///   - environment: Variables beside `PATH` and `HOME`; nothing else is inherited.
    ///   - input: Its standard input.
    ///   - output: A directory for its output and the files' name without extension; a temporary one when nil.
    /// - Throws: ``POSIXFailure`` when it cannot be started.
    package static func start(
        _ arguments: [String], environment: [String: String] = [:], input: Input = .none,
        output: (directory: String, label: String)? = nil
    ) async throws -> ChildProcess {
        let directory = output == nil ? try TemporaryDirectory("p") : nil
        let base = output.map { "\($0.directory)/\($0.label)" } ?? directory?.path("program") ?? ""
        var variables = environment
        variables["PATH"] = variables["PATH"] ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        variables["HOME"] = variables["HOME"] ?? output?.directory ?? directory?.path
        let command = endingWithThread(arguments)
        let exit = Exit()
        let environmentStrings = variables.map { "\($0.key)=\($0.value)" }
        var (source, ourEnd): (StandardStream, Int32?)
        var theirEnd: Int32?
        switch input {
        case .file(let path): (source, ourEnd) = (.file(path), nil)
        case .pipe:
            var ends: [Int32] = [-1, -1]
            guard pipe(&ends) == 0 else { throw POSIXFailure("pipe", errno) }
            for descriptor in ends { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
            (source, ourEnd, theirEnd) = (.descriptor(ends[0]), ends[1], ends[0])
        }
        defer { if let theirEnd { close(theirEnd) } }
        let standardInput = source
        let pid: pid_t
        do {
            pid = try await withCheckedThrowingContinuation { continuation in
                // The kernel binds the signal at the parent's death to the thread that started the child, so one thread
                // does both: start it and wait for its end.
                Thread.detachNewThread {
                    do {
                        let pid = try spawn(
                            command, environment: environmentStrings, input: standardInput,
                            output: .file("\(base).out"), errors: .file("\(base).err"))
                        continuation.resume(returning: pid)
                        exit.awaitEnd(of: pid)
                    } catch {
                        continuation.resume(throwing: error)
                    }
                }
            }
        } catch {
            if let ourEnd { close(ourEnd) }
            throw error
        }
        return ChildProcess(
            name: (arguments[0] as NSString).lastPathComponent, pid: pid, standardOutput: "\(base).out",
            standardError: "\(base).err", input: ourEnd, exit: exit, directory: directory)
    }

    private init(
        name: String, pid: pid_t, standardOutput: String, standardError: String, input: Int32?, exit: Exit,
        directory: TemporaryDirectory?
    ) {
        self.name = name
        self.pid = pid
        self.standardOutput = standardOutput
        self.standardError = standardError
        self.input = input
        self.exit = exit
        self.directory = directory
    }

    deinit {
        send(SIGKILL)
        if let input { close(input) }
    }

    /// Whether it still runs.
    package var isRunning: Bool { exit.status == nil }

    /// Sends a signal, unless the process has ended.
    package func send(_ signal: Int32) { exit.send(signal, to: pid) }

    /// Writes a line to its standard input, which must be ``Input/pipe``.
    package func write(line: String) {
        guard let input else { preconditionFailure("\(name) reads no pipe") }
        let bytes = Array((line + "\n").utf8)
        _ = bytes.withUnsafeBytes { Foundation.write(input, $0.baseAddress, $0.count) }
    }

    /// What it wrote to standard output so far; a character at the end may be only half there yet.
    package var output: String { Self.text(of: standardOutput) }

    /// What it wrote to standard error so far.
    package var errors: String { Self.text(of: standardError) }

    private static func text(of path: String) -> String {
        String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
    }

    /// Both outputs, for the message of a failed test.
    package var log: String {
        "--- \(name) (\(pid)) standard output\n\(output.suffix(4000))\n--- standard error\n\(errors.suffix(8000))"
    }

    /// Waits for the end; a process that does not end within the limit is killed and the wait fails.
    package func wait(limit: Duration = .seconds(180)) async throws -> Status {
        let watchdog = Task {
            try await Task.sleep(for: limit)
            send(SIGKILL)
            return true
        }
        let status = await exit.wait()
        watchdog.cancel()
        if case .success(true) = await watchdog.result {
            throw HarnessFailure("\(name) did not end within \(limit)\n\(log)")
        }
        return status
    }

    /// Waits until `condition` gives something; fails when the process ends or the limit passes first.
    package func until<Value: Sendable>(
        _ what: String, limit: Duration = .seconds(60), _ condition: () async throws -> Value?
    ) async throws -> Value {
        try await eventually(what, limit: limit, every: .milliseconds(20), detail: { self.log }) {
            // Asked for first: what it did just before its end is there to be seen then.
            let hasEnded = !isRunning
            if let value = try await condition() { return value }
            if hasEnded { throw HarnessFailure("\(name) ended while waiting for \(what)\n\(log)") }
            return nil
        }
    }
}
