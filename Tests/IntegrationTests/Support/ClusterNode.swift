import Foundation
import TestSupport

/// A node of a cluster in a process of its own: `Tests/Tools/RouterNode`.
final class ClusterNode: Sendable {
    /// One line of its output.
    struct Event: Decodable, Sendable {
        var event: String
        var id: String?
        var addresses: [String]?
        var providers: [String]?
        var peers: [String]?
        var missing: Int?
        var own: Int?
        var kept: Int?
        var seconds: Double?
        var median: Double?
        var p99: Double?
    }

    let process: ChildProcess
    let id: String
    let addresses: [String]
    private let commands: FileHandle
    private let directory: TemporaryDirectory

    /// Starts a node and waits until it listens.
    ///
    /// - Parameters:
    ///   - listen: Multiaddresses.
    ///   - bootstrap: Multiaddresses of the nodes to join.
    ///   - seed: What its identity is made from; a new one without.
    ///   - wrapper: A program, with its arguments, to run it with.
    static func start(
        listen: [String], bootstrap: [String], seed: UInt8? = nil, wrapper: [String] = []
    ) async throws -> ClusterNode {
        let directory = try TemporaryDirectory("n")
        let path = directory.path("commands")
        guard mkfifo(path, 0o600) == 0 else { throw POSIXFailure("mkfifo", errno) }
        let process = try await ChildProcess.start(
            wrapper + [try Project.program("router-node")] + (seed.map { ["--seed", "\($0)"] } ?? [])
                + bootstrap.flatMap { ["--bootstrap", $0] } + listen,
            input: .file(path))
        // The child has it open for both directions, so this does not wait for a reader.
        guard let commands = FileHandle(forUpdatingAtPath: path) else { throw POSIXFailure("open \(path)", errno) }
        let listening = try await process.until("the node listening") { () -> Event? in
            events(in: process.output).first { $0.event == "listening" }
        }
        return ClusterNode(process, listening, commands, directory)
    }

    private init(_ process: ChildProcess, _ listening: Event, _ commands: FileHandle, _ directory: TemporaryDirectory) {
        self.process = process
        id = listening.id ?? ""
        addresses = listening.addresses ?? []
        self.commands = commands
        self.directory = directory
    }

    private static func events(in output: String) -> [Event] {
        output.split(separator: "\n").compactMap { try? JSONDecoder().decode(Event.self, from: Data($0.utf8)) }
    }

    private func events(_ name: String) -> [Event] { Self.events(in: process.output).filter { $0.event == name } }

    /// Waits until it has joined.
    func ready() async throws -> Event {
        try await process.until("the node ready") { self.events("ready").first }
    }

    /// Tells it something and returns the event that answers. One at a time.
    func ask(_ line: String, _ name: String, limit: Duration = .seconds(120)) async throws -> Event {
        let earlier = events(name).count
        try commands.write(contentsOf: Data((line + "\n").utf8))
        return try await process.until("the answer to \(line)", limit: limit) {
            self.events(name).dropFirst(earlier).first
        }
    }

    /// Asks again and again until a key is found at just these nodes.
    func finds(_ key: String, at nodes: [ClusterNode]) async throws {
        let expected = Set(nodes.map(\.id))
        _ = try await process.until("\(key) being found", limit: .seconds(120)) { () -> Bool? in
            let found = try await self.ask("find \(key)", "found")
            return Set(found.providers ?? []) == expected ? true : nil
        }
    }

    /// Asks again and again until all keys of a prefix are found at a node; the last, complete, round's times.
    func findsAll(_ prefix: String, _ count: Int, at node: ClusterNode) async throws -> Event {
        try await process.until("all of \(prefix) being found", limit: .seconds(180)) {
            let found = try await self.ask("findall \(prefix) \(count) \(node.id)", "foundall", limit: .seconds(180))
            return found.missing == 0 ? found : nil
        }
    }
}
