import CNodeSystem
import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Runs a program of this machine, or of the host that a container runs on, and waits for its end.
package struct HostCommand: Sendable, Hashable {
    /// How a program ended.
    package struct Outcome: Sendable, Hashable {
        /// The exit status, or 128 and the signal's number.
        package var status: Int32
        /// The first ``outputLimit`` bytes of what it wrote.
        package var output: String

        package var succeeded: Bool { status == 0 }
    }

    /// Bytes of output kept; the rest is read and dropped.
    package static let outputLimit = 256 << 10

    /// The program and its arguments.
    package var arguments: [String]
    /// Whether it runs in the namespaces of the host's process 1.
    package var onHost: Bool
    /// The time after which it is killed.
    package var timeout: Duration

    package init(_ arguments: [String], onHost: Bool = false, timeout: Duration = .seconds(120)) {
        self.arguments = arguments
        self.onHost = onHost
        self.timeout = timeout
    }

    /// Runs a line of the shell.
    package static func shell(_ line: String, timeout: Duration = .seconds(120)) -> HostCommand {
        HostCommand(["/bin/sh", "-c", line], timeout: timeout)
    }

    /// The command as a person would type it.
    package var text: String {
        arguments.count == 3 && arguments[0] == "/bin/sh" ? arguments[2] : arguments.joined(separator: " ")
    }

    /// Runs the program to its end.
    ///
    /// - Throws: ``ContainerdConfigurationError`` when it cannot be started.
    package func run() async throws -> Outcome {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw failure("no pipe") }
        defer { close(ends[0]) }
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        let child = spawn(output: ends[1])
        close(ends[1])
        guard child > 0 else { throw failure("cannot be started") }
        let clock = ContinuousClock()
        let deadline = clock.now + timeout
        var output: [UInt8] = []
        var isKilled = false
        while true {
            drain(ends[0], into: &output)
            var status: Int32 = 0
            if waitpid(child, &status, WNOHANG) == child {
                drain(ends[0], into: &output)
                let signal = status & 0x7f
                if isKilled { output += Array("\nended after \(timeout)".utf8) }
                return Outcome(
                    status: signal == 0 ? (status >> 8) & 0xff : 128 + signal,
                    output: String(decoding: output, as: UTF8.self))
            }
            if clock.now >= deadline, !isKilled {
                kill(-child, SIGKILL)
                isKilled = true
            }
            try? await Task.sleep(for: .milliseconds(20))
        }
    }

    private func spawn(output: Int32) -> Int32 {
        var environment = ProcessInfo.processInfo.environment
        environment["PATH"] = environment["PATH"] ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        if onHost { environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }
        let texts = arguments.map { strdup($0) } + [nil]
        let variables = environment.map { strdup("\($0)=\($1)") } + [nil]
        defer { for text in texts + variables { free(text) } }
        return texts.map { UnsafePointer($0) }.withUnsafeBufferPointer { texts in
            variables.map { UnsafePointer($0) }.withUnsafeBufferPointer { variables in
                node_spawn(texts.baseAddress, variables.baseAddress, onHost ? 1 : 0, output)
            }
        }
    }

    private func drain(_ descriptor: Int32, into output: inout [UInt8]) {
        var buffer = [UInt8](repeating: 0, count: 16 << 10)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            guard count > 0 else { return }
            output += buffer[..<min(count, max(0, Self.outputLimit - output.count))]
        }
    }

    private func failure(_ reason: String) -> ContainerdConfigurationError {
        .file(path: arguments.first ?? "", reason: "\(reason): \(String(cString: strerror(errno)))")
    }
}
