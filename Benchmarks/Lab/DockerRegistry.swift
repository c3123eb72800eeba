import Foundation

/// Debian's docker-registry: empty, to be filled, or as a pull-through cache.
///
/// Not checked to be sendable for its `Process`, which is only asked for its number and, once, to end.
final class DockerRegistry: BenchmarkServer, @unchecked Sendable {
    let name = "docker-registry"
    let port: Int
    private let process = Process()
    private let directory: String

    /// - Parameters:
    ///   - port: nil for any that is free.
    ///   - upstream: the port of the registry it is a cache of.
    init(port: Int? = nil, pullThroughOf upstream: Int? = nil) throws {
        let program = try Tool.find("docker-registry", package: "docker-registry")
        self.port = try port ?? FreePort.any()
        directory = NSTemporaryDirectory() + "spegel-benchmark-registry-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let proxy = upstream.map { "proxy:\n  remoteurl: http://127.0.0.1:\($0)" } ?? ""
        let text = """
            version: 0.1
            log:
              level: error
              accesslog:
                disabled: true
            storage:
              filesystem:
                rootdirectory: \(directory)
                maxthreads: 400
              delete:
                enabled: true
            http:
              addr: 127.0.0.1:\(self.port)
            \(proxy)
            """
        try text.write(toFile: "\(directory)/config.yml", atomically: true, encoding: .utf8)
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = ["serve", "\(directory)/config.yml"]
        var environment = ProcessInfo.processInfo.environment
        environment["OTEL_TRACES_EXPORTER"] = "none"
        process.environment = environment
        _ = FileManager.default.createFile(atPath: "\(directory)/log", contents: nil)
        let log = FileHandle(forWritingAtPath: "\(directory)/log")
        process.standardOutput = log
        process.standardError = log
        try process.runWithSignals()
        for _ in 0..<1000 {
            if (try? ClientSocket(port: self.port)) != nil { return }
            guard process.isRunning else { break }
            usleep(10_000)
        }
        throw BenchmarkError("docker-registry does not start: \(Machine.file("\(directory)/log").suffix(2000))")
    }

    var processes: [Int32] { [process.processIdentifier] }

    /// A cache of an upstream knows no other one.
    func path(_ content: BenchmarkImages.Content) -> String { String(content.registryPath.prefix { $0 != "?" }) }

    func stop() {
        process.terminate()
        process.waitUntilExit()
        try? FileManager.default.removeItem(atPath: directory)
    }
}
