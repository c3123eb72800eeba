import ContainerdContentStore
import ContentStore
import Foundation
import Logging

/// A process of its own around one store, for tests of memory and of permissions: `containerd-probe SOCKET NAMESPACE
/// [CONTENT-PATH]`, then a command a line on standard input and an answer a line on standard output.
@main
struct ContainerdProbe {
    static func main() async throws {
        let arguments = CommandLine.arguments
        guard arguments.count >= 3 else { exit(64) }
        let configuration = ContainerdConfiguration(
            socketPath: arguments[1], namespace: arguments[2], contentPath: arguments.count > 3 ? arguments[3] : nil)
        LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
        let store = ContainerdContentStore(configuration: configuration, logger: Logger(label: "probe"))
        try await store.start()
        while let command = readLine() {
            switch command {
            case "wait":
                try await store.waitUntilIndexed()
                say("indexed")
            case "explanation":
                say("explanation \(store.health.explanation ?? "none")")
            case "access":
                say("access \(store.health.access.map { "\($0)" } ?? "undecided")")
            case "counts":
                say("counts \(store.health.images) \(store.health.contents)")
            case "memory":
                trim()
                say("memory \(residentBytes())")
            default:
                await store.shutdown()
                return
            }
        }
    }

    /// Not `print`, whose buffer would hold the answer back.
    private static func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

    /// Gives free memory back to the system, so that what is resident is what is used; not in the C library's module.
    private static func trim() {
        typealias Trim = @convention(c) (Int) -> Int32
        guard let symbol = dlsym(nil, "malloc_trim") else { return }
        _ = unsafeBitCast(symbol, to: Trim.self)(0)
    }

    private static func residentBytes() -> Int {
        let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
        return (Int(text.split(separator: " ").dropFirst().first ?? "") ?? 0) * sysconf(Int32(_SC_PAGESIZE))
    }
}
