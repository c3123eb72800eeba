import Foundation
import SpawnKit
import Synchronization

/// The `store-writer` program, run by a test. Killed when it is released.
final class ToolProcess: Sendable {
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    private let process: pid_t
    private let isWaitedFor = Mutex(false)
    private let outputPath: String
    private let directory: TemporaryDirectory

    /// Where the program is: it was built together with the tests and lies beside them.
    static func program() throws -> String {
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let path = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent("store-writer").path
        guard FileManager.default.isExecutableFile(atPath: path) else { throw Failure(description: "no \(path)") }
        return path
    }

    /// Starts a program with its output in a file.
    init(_ arguments: [String]) throws {
        directory = try TemporaryDirectory()
        outputPath = "\(directory.path)/output"
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        addCloseOthers(&actions)
        var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { pointers.forEach { free($0) } }
        var process: pid_t = 0
        let result = posix_spawnp(&process, arguments[0], &actions, nil, &pointers, environ)
        guard result == 0 else { throw Failure(description: "\(arguments[0]): \(String(cString: strerror(result)))") }
        self.process = process
    }

    deinit {
        // One that is waited for may have ended, and its number may be another's.
        guard !isWaitedFor.withLock({ $0 }) else { return }
        kill()
        let process = process
        Thread.detachNewThread { _ = waitpid(process, nil, 0) }
    }

    var output: String { (try? String(contentsOfFile: outputPath, encoding: .utf8)) ?? "" }

    func kill() { Foundation.kill(process, SIGKILL) }

    /// Waits until the program has ended.
    ///
    /// - Returns: its exit status, or minus the signal that ended it.
    func wait() async -> Int32 {
        isWaitedFor.withLock { $0 = true }
        return await withCheckedContinuation { continuation in
            let process = process
            Thread.detachNewThread {
                continuation.resume(returning: reap(process))
            }
        }
    }

    /// Runs a program to its end, which must be a success.
    static func check(_ arguments: [String]) async throws -> String {
        let tool = try ToolProcess(arguments)
        let status = await tool.wait()
        guard status == 0 else { throw Failure(description: "status \(status): \(tool.output)") }
        return tool.output
    }
}
