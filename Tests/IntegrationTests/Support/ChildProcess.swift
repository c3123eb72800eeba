import Foundation
import SpawnKit
import Synchronization

/// A program started by a test, which does not outlive it.
///
/// Its output goes to files, so that it never waits for a reader and can be shown when a test fails.
final class ChildProcess: Sendable {
    let name: String
    let pid: pid_t
    let standardOutput: String
    let standardError: String
    private let exit: Exit
    private let directory: TemporaryDirectory

    /// How a process ended.
    enum Status: Equatable, Sendable {
        case exited(Int32)
        case signalled(Int32)
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
    ///   - environment: Variables beside `PATH`; nothing else is inherited.
    ///   - standardInput: A file or FIFO; opened for both directions, so that a FIFO has no end.
    static func start(
        _ arguments: [String], environment: [String: String] = [:], standardInput: String = "/dev/null"
    ) async throws -> ChildProcess {
        let directory = try TemporaryDirectory("p")
        let output = directory.path("out")
        let errors = directory.path("err")
        var variables = environment
        variables["PATH"] = variables["PATH"] ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        variables["HOME"] = variables["HOME"] ?? directory.path
        // Children must not outlive a test run that is killed; the kernel sees to it through setpriv.
        let command = ["setpriv", "--pdeathsig", "KILL", "--"] + arguments
        let exit = Exit()
        let environmentStrings = variables.map { "\($0.key)=\($0.value)" }
        let pid: pid_t = try await withCheckedThrowingContinuation { continuation in
            // The signal is bound to the thread that started the child, so one thread does both: start it and wait.
            Thread.detachNewThread {
                do {
                    let pid = try spawn(
                        command, environmentStrings, input: standardInput, output: output, errors: errors)
                    continuation.resume(returning: pid)
                    exit.awaitEnd(of: pid)
                } catch {
                    continuation.resume(throwing: error)
                }
            }
        }
        let name = (arguments[0] as NSString).lastPathComponent
        return ChildProcess(
            name: name, pid: pid, standardOutput: output, standardError: errors, exit: exit, directory: directory)
    }

    private init(
        name: String, pid: pid_t, standardOutput: String, standardError: String, exit: Exit,
        directory: TemporaryDirectory
    ) {
        self.name = name
        self.pid = pid
        self.standardOutput = standardOutput
        self.standardError = standardError
        self.exit = exit
        self.directory = directory
    }

    deinit {
        send(SIGKILL)
    }

    private static func spawn(
        _ arguments: [String], _ environment: [String], input: String, output: String, errors: String
    ) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let flags = O_WRONLY | O_CREAT | O_APPEND
        posix_spawn_file_actions_addopen(&actions, 0, input, O_RDWR, 0)
        posix_spawn_file_actions_addopen(&actions, 1, output, flags, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, errors, flags, 0o600)
        addCloseOthers(&actions)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // The test runner may have blocked signals on this thread; the child starts with none blocked.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        var defaults = sigset_t()
        sigemptyset(&defaults)
        sigaddset(&defaults, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        let argv = arguments.map { strdup($0) } + [nil]
        let envp = environment.map { strdup($0) } + [nil]
        defer { (argv + envp).forEach { free($0) } }
        var pid = pid_t()
        let code = posix_spawnp(&pid, arguments[0], &actions, &attributes, argv, envp)
        guard code == 0 else { throw POSIXFailure("posix_spawn \(arguments.joined(separator: " "))", code) }
        return pid
    }

    /// Whether it still runs.
    var isRunning: Bool { exit.status == nil }

    /// Sends a signal, unless the process has ended.
    func send(_ signal: Int32) { exit.send(signal, to: pid) }

    /// What it wrote to standard output so far.
    var output: String { textSoFar(of: standardOutput) }

    /// What it wrote to standard error so far.
    var errors: String { textSoFar(of: standardError) }

    /// Both outputs, for the message of a failed test.
    var log: String {
        "--- \(name) (\(pid)) standard output\n\(output.suffix(4000))\n--- standard error\n\(errors.suffix(8000))"
    }

    /// Waits for the end; a process that does not end within the limit is killed and the wait fails.
    func wait(limit: Duration = .seconds(120)) async throws -> Status {
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
    func until<Value: Sendable>(
        _ what: String, limit: Duration = .seconds(60), _ condition: () async throws -> Value?
    ) async throws -> Value {
        try await eventually(what, limit: limit, detail: { self.log }) {
            // Asked for first: what it did just before its end is there to be seen then.
            let hasEnded = !isRunning
            if let value = try await condition() { return value }
            if hasEnded { throw HarnessFailure("\(name) ended while waiting for \(what)\n\(log)") }
            return nil
        }
    }
}

/// What a test's surroundings could not do.
struct HarnessFailure: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Asks again and again until there is an answer; the limit is only there so that nothing hangs.
func eventually<Value: Sendable>(
    _ what: String, limit: Duration = .seconds(60), detail: () -> String = { "" },
    _ condition: () async throws -> Value?
) async throws -> Value {
    let clock = ContinuousClock()
    let end = clock.now + limit
    while true {
        // Asked once more after the limit: this process may have stood still meanwhile.
        let isOver = clock.now >= end
        if let value = try await condition() { return value }
        if isOver { throw HarnessFailure("\(what) did not happen within \(limit)\n\(detail())") }
        try await Task.sleep(for: .milliseconds(20))
    }
}
