import Foundation

/// This program run again with a hidden subcommand, as a server that prints its port and ends with its standard input.
final class OwnProcess {
    let port: Int
    private let process = Process()
    private let input = Pipe()

    /// - Parameter command: what is run instead of this program, with arguments of its own.
    init(_ arguments: [String], command: [String] = []) throws {
        let output = Pipe()
        let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.executableURL = command.first.map { URL(fileURLWithPath: $0) } ?? own
        process.arguments = command.dropFirst() + arguments
        process.standardInput = input
        process.standardOutput = output
        try process.runWithSignals()
        var text = ""
        while !text.contains("\n") {
            let data = output.fileHandleForReading.availableData
            guard !data.isEmpty else { throw BenchmarkError("\(arguments.first ?? "") ended before it listened") }
            text += String(decoding: data, as: UTF8.self)
        }
        guard let port = Int(text.trimmingCharacters(in: .whitespacesAndNewlines)), port > 0 else {
            throw BenchmarkError("\(arguments.first ?? "") said \(text) instead of its port")
        }
        self.port = port
    }

    var identifier: Int32 { process.processIdentifier }

    func stop() {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }
}
