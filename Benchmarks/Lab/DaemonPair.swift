import ContainerdTestKit
import Foundation
import TestSupport

/// Two daemons of one program, each with a containerd: the first's has the content, the second's gets it from there.
///
/// Loopback addresses are not advertised, so these need ``BenchmarkNamespace``.
final class DaemonPair {
    let name: String
    private(set) var nodes: [Daemon] = []

    /// A daemon on the port that all of a cluster share.
    struct Daemon: BenchmarkServer {
        let name: String
        let host: String
        let program: ChildProcess
        let port = 5000
        var processes: [Int32] { [program.pid] }
        func stop() { program.send(SIGTERM) }
    }

    /// The one whose content is its own.
    var local: Daemon { nodes[0] }
    /// The one that has nothing.
    var remote: Daemon { nodes[1] }

    private let program: String
    private let addresses: [String]
    private let stores: [ContainerdDaemon]
    private let folder: TemporaryDirectory

    /// - Parameter addresses: of the nodes, two.
    init(_ name: String, program: String, addresses: [String], stores: [ContainerdDaemon]) throws {
        self.name = name
        self.program = program
        self.addresses = addresses
        self.stores = stores
        folder = try TemporaryDirectory()
    }

    /// Starts both and waits until the second serves everything.
    func start(_ images: BenchmarkImages) async throws {
        for index in 0..<2 { try await startNode(index) }
        let contents = [images.manifest] + images.smallLayers + images.mediumLayers + [images.layer]
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
        defer { buffer.deallocate() }
        for content in contents {
            _ = try await eventually(
                "\(name): the second node serves \(content.registryPath)", limit: .seconds(120),
                detail: { String(nodes.map(\.program.errors).joined().suffix(3000)) }
            ) {
                guard nodes.allSatisfy(\.program.isRunning) else { throw BenchmarkError("\(name) has ended") }
                return try? ClientSocket(host: remote.host, port: remote.port).get(content.registryPath, buffer: buffer)
            }
        }
    }

    /// Starts one of both, without waiting for anything.
    @discardableResult
    func startNode(_ index: Int) async throws -> Daemon {
        let address = addresses[index]
        let started = try await ChildProcess.start(
            [
                program, "registry", "--registry-addr", "\(address):5000", "--router-addr", "\(address):5001",
                "--metrics-addr", "\(address):9090", "--containerd-sock", stores[index].socketPath,
                "--containerd-namespace", "k8s.io", "--containerd-content-path", stores[index].contentPath,
                "--bootstrap-kind", "http", "--http-bootstrap-addr", "\(address):5002",
                "--http-bootstrap-url", "http://\(addresses[0]):5002/id",
            ], output: (folder.path, "node\(index)"))
        let daemon = Daemon(name: name, host: address, program: started)
        if index < nodes.count { nodes[index] = daemon } else { nodes.append(daemon) }
        return daemon
    }

    /// Ends one of both and waits for its end.
    func stopNode(_ index: Int) async throws {
        nodes[index].stop()
        _ = try await nodes[index].program.wait()
    }

    func stop() { for node in nodes { node.stop() } }
}
