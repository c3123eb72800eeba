import Foundation

/// Programs that benchmarks need.
enum Tool {
    /// Finds a program and installs its Debian package if it is missing.
    static func find(_ name: String, package: String) throws -> String {
        if let path = locate(name) { return path }
        print("installing \(package) …")
        var environment = ProcessInfo.processInfo.environment
        environment["DEBIAN_FRONTEND"] = "noninteractive"
        for arguments in [["install", "-y", "-q", package], ["update", "-q"], ["install", "-y", "-q", package]] {
            _ = try? run("/usr/bin/apt-get", arguments, environment: environment)
            if let path = locate(name) { return path }
        }
        throw BenchmarkError("\(name) is missing and the package \(package) could not be installed")
    }

    /// Runs a program to its end.
    ///
    /// - Parameter quiet: whether what it writes to its standard error is of no use.
    /// - Returns: what it wrote to its standard output.
    static func run(
        _ path: String, _ arguments: [String], environment: [String: String]? = nil, quiet: Bool = false
    ) throws -> String {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        process.environment = environment
        process.standardOutput = output
        if quiet { process.standardError = FileHandle.nullDevice }
        try process.runWithSignals()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        let text = String(decoding: data, as: UTF8.self)
        guard process.terminationStatus == 0 else {
            throw BenchmarkError("\(path) ended with status \(process.terminationStatus): \(text)")
        }
        return text
    }

    private static func locate(_ name: String) -> String? {
        ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/sbin", "/bin"]
            .map { "\($0)/\(name)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }
}

extension Process {
    /// Runs it with no signal blocked. Threads of Swift's concurrency block all of them, which a child inherits: openssl then
    /// never notices that its second is over, and nginx not that it shall end.
    func runWithSignals() throws {
        var (none, before) = (sigset_t(), sigset_t())
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        try run()
    }
}
