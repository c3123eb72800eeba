import Foundation
import SpawnKit
import Synchronization

/// A test's surroundings did not do what they had to.
public struct KitFailure: Error, CustomStringConvertible {
    /// What happened.
    public let description: String

    /// Creates a failure.
    public init(_ description: String) { self.description = description }
}

/// Asks again until there is an answer. The limit only keeps a failing test from hanging.
public func eventually<Value>(
    _ what: String, limit: Duration = .seconds(90), detail: () -> String = { "" },
    _ condition: () async throws -> Value?
) async throws -> Value {
    let end = ContinuousClock.now + limit
    while true {
        // Asked once more after the limit: this process may have stood still meanwhile.
        let isOver = ContinuousClock.now >= end
        if let value = try await condition() { return value }
        if isOver { throw KitFailure("\(what) never happened\n\(detail())") }
        try await Task.sleep(for: .milliseconds(10))
    }
}

/// A process and how it ended. It is reaped and sent signals under one lock, so that no signal meets another process
/// that has got its number.
private final class Child: Sendable {
    let pid: pid_t
    private let state = Mutex<Int32?>(nil)

    init(pid: pid_t) { self.pid = pid }

    /// The exit status, or the negated signal; `nil` while it runs.
    var status: Int32? { state.withLock { $0 } }

    func send(_ signal: Int32) {
        state.withLock { status in
            guard status == nil else { return }
            kill(pid, signal)
        }
    }

    /// Waits for its end, and blocks meanwhile.
    func awaitEnd() {
        waitForEnd(of: pid)
        state.withLock { $0 = reap(pid) }
    }
}

/// A program started by a test; killed when it is released, and by the kernel should the test run die.
public final class Program: Sendable {
    /// Its process ID.
    public var pid: pid_t { child.pid }
    private let name: String
    private let outputPath: String
    private let errorPath: String
    private let input: Int32
    private let child: Child

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - arguments: the program, looked up on the path, and its arguments.
    ///   - directory: where its output goes, as files that start with `label`.
    public static func start(_ arguments: [String], directory: String, label: String) async throws -> Program {
        try await withCheckedThrowingContinuation { continuation in
            // The kernel binds the death signal to the starting thread, which therefore lives as long as the child.
            Thread.detachNewThread {
                // In a function of its own, so that this thread does not keep the program alive.
                func launch() -> Child? {
                    do {
                        let program = try Program(arguments, directory: directory, label: label)
                        defer { continuation.resume(returning: program) }
                        return program.child
                    } catch {
                        continuation.resume(throwing: error)
                        return nil
                    }
                }
                launch()?.awaitEnd()
            }
        }
    }

    private init(_ arguments: [String], directory: String, label: String) throws {
        // A line for a program that has ended is not the end of the test run.
        signal(SIGPIPE, SIG_IGN)
        name = arguments[0]
        outputPath = "\(directory)/\(label).out"
        errorPath = "\(directory)/\(label).err"
        var pipe: [Int32] = [0, 0]
        guard Foundation.pipe(&pipe) == 0 else { throw KitFailure("pipe: \(errno)") }
        for descriptor in pipe { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        input = pipe[1]
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, pipe[0], 0)
        posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, errorPath, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        addCloseOthers(&actions)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigaddset(&signals, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        let words = ["setpriv", "--pdeathsig", "KILL", "--"] + arguments
        let argv = words.map { strdup($0) } + [nil]
        defer { argv.forEach { free($0) } }
        var started = pid_t()
        let code = posix_spawnp(&started, words[0], &actions, &attributes, argv, environ)
        close(pipe[0])
        guard code == 0 else {
            close(pipe[1])
            throw KitFailure("cannot start \(arguments): \(code)")
        }
        child = Child(pid: started)
    }

    deinit {
        send(SIGKILL)
        close(input)
    }

    /// Whether it still runs.
    public var isRunning: Bool { child.status == nil }

    /// What it wrote to standard output.
    public var output: String { textSoFar(of: outputPath) }

    /// What it wrote to standard error.
    public var errors: String { textSoFar(of: errorPath) }

    /// Sends a signal, unless the program has ended.
    public func send(_ signal: Int32) { child.send(signal) }

    /// Writes a line to its standard input.
    public func write(line: String) {
        let bytes = Array((line + "\n").utf8)
        _ = bytes.withUnsafeBytes { Foundation.write(input, $0.baseAddress, $0.count) }
    }

    /// Waits for its end.
    ///
    /// - Returns: the exit status, or the negated signal.
    public func wait() async throws -> Int32 {
        try await eventually("the end of \(name)", limit: .seconds(180), detail: { self.errors }) {
            child.status
        }
    }

    /// Runs a program to its end; it must succeed.
    ///
    /// - Returns: its standard output.
    @discardableResult
    public static func run(_ arguments: [String]) async throws -> String {
        let directory = try TemporaryFolder()
        let program = try await start(arguments, directory: directory.path, label: "run")
        let code = try await program.wait()
        guard code == 0 else {
            throw KitFailure("\(arguments.joined(separator: " ")) ended with \(code)\n\(program.errors)")
        }
        return program.output
    }

    /// The path of a program that was built together with the tests.
    public static func built(_ name: String) throws -> String {
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let path = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent(name).path
        guard FileManager.default.isExecutableFile(atPath: path) else { throw KitFailure("no program \(path)") }
        return path
    }
}

/// A directory that is removed with the last reference to it. Its path is short, as sockets need.
public final class TemporaryFolder: Sendable {
    /// The path.
    public let path: String

    /// What has to be free on a memory file system for it to be used, in bytes: in a container it may have 64 MiB.
    private static let memoryNeeded: UInt64 = 4 << 30

    /// Creates a directory.
    ///
    /// - Parameter inMemory: on a memory file system that has room, for what would otherwise wait for disks.
    public init(inMemory: Bool = false) throws {
        let base = inMemory && Self.hasMemory(at: "/dev/shm") ? "/dev/shm" : "/tmp"
        var template = Array("\(base)/ctd.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw KitFailure("mkdtemp: \(errno)") }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    private static func hasMemory(at path: String) -> Bool {
        var information = statvfs()
        guard FileManager.default.isWritableFile(atPath: path), statvfs(path, &information) == 0 else { return false }
        return UInt64(information.f_bavail) * UInt64(information.f_frsize) >= memoryNeeded
    }
}
