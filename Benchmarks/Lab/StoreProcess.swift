import Foundation

/// A ``StoreServerCommand`` that runs in a process of its own.
final class StoreProcess {
    /// How long it took from its first instruction until the store knew everything.
    let seconds: Double
    /// Where it serves.
    let port: Int
    private let process = Process()
    private let input = Pipe()
    private let output = Pipe()

    init(_ arguments: [String]) throws {
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["store-server"] + arguments
        process.standardInput = input
        process.standardOutput = output
        try process.runWithSignals()
        var line = Data()
        while let byte = try output.fileHandleForReading.read(upToCount: 1), byte != Data("\n".utf8) {
            guard !byte.isEmpty else { break }
            line += byte
        }
        let fields = String(decoding: line, as: UTF8.self).split(separator: " ")
        guard fields.count == 2, let seconds = Double(fields[0]), let port = Int(fields[1]) else {
            throw BenchmarkError("the store's process did not start")
        }
        self.seconds = seconds
        self.port = port
    }

    var residentMiB: Double { ProcessUsage(of: [process.processIdentifier]).residentMiB }

    func stop() {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }
}
