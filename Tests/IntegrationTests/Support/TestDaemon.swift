import Foundation
import MirrorServer
import TestSupport

/// A daemon of ours on a loopback address of its own, serving an image layout.
final class TestDaemon: Sendable {
    let process: ChildProcess
    let address: String
    let port: Int

    /// `host:port` of the registry.
    var registry: String { "\(address):\(port)" }

    /// The ports of a daemon; 0 for any.
    struct Ports {
        var registry = 0
        var metrics = DebugInterface.port
        var router = 0

        /// What peers expect: the same on every node.
        static let usual = Ports(registry: 5000, router: 5001)
    }

    /// Starts a daemon and waits until it says that it listens.
    static func start(
        store: String, address: String = LoopbackAddress.next(), ports: Ports = Ports(), arguments: [String] = [],
        environment: [String: String] = [:], wrapper: [String] = [], logLevel: String = "DEBUG"
    ) async throws -> TestDaemon {
        let process = try await ChildProcess.start(
            wrapper + [
                try Project.program(), "--log-level", logLevel, "registry", "--store", store,
                "--registry-addr", "\(address):\(ports.registry)", "--metrics-addr", "\(address):\(ports.metrics)",
                "--router-addr", "\(address):\(ports.router)",
            ] + arguments, environment: environment)
        let port = try await process.until("the daemon listening") { () -> Int? in
            guard
                let status = try? await DebugInterface.document(
                    "status", of: address, port: ports.metrics) as MirrorNode.Status
            else { return nil }
            return status.registryAddresses.first?.split(separator: ":").last.flatMap { Int($0) }
        }
        return TestDaemon(process: process, address: address, port: port)
    }

    private init(process: ChildProcess, address: String, port: Int) {
        self.process = process
        self.address = address
        self.port = port
    }

    /// A new connection to the registry.
    func connect(receiveBuffer: Int32? = nil) throws -> RawConnection {
        try RawConnection(address, port, receiveBuffer: receiveBuffer)
    }

    /// The response to one request on a connection of its own.
    func request(_ method: String, _ uri: String, headers: [String: String] = [:]) async throws
        -> RawConnection.Response
    {
        try await connect().request(method, uri, headers: headers)
    }

    /// The log so far.
    var log: [LogLine] { LogLine.all(in: process.errors) }
}

/// One line of the daemon's log.
struct LogLine {
    var fields: [String: Any]

    subscript(name: String) -> Any? { fields[name] }

    var message: String { fields["msg"] as? String ?? "" }

    var level: String { fields["level"] as? String ?? "" }

    /// The whole lines of a log; a line that is no JSON object comes back without fields.
    static func all(in text: String) -> [LogLine] {
        let complete = text.last == "\n" ? text[...] : text[..<(text.lastIndex(of: "\n") ?? text.startIndex)]
        return complete.split(separator: "\n").map { line in
            LogLine(fields: (try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]) ?? [:])
        }
    }
}
