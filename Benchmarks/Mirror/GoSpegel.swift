import ContainerdTestKit
import Foundation
import TestSupport

/// The Go original as two nodes, each with a containerd of its own: the first has the content, the second, which is
/// measured, gets it from there. Any program with the same command line will do.
///
/// It advertises no loopback addresses, so that it needs ``BenchmarkNamespace``.
final class GoSpegel: RivalServer {
    let name: String
    let host = BenchmarkNamespace.addresses[1]
    let port = 5000
    private let stores: [ContainerdDaemon]
    private let nodes: [ChildProcess]
    private let folder: TemporaryDirectory

    var processes: [Int32] { [nodes[1].pid] }

    /// - Parameter path: the program.
    static func start(_ path: String, layout: ServedLayout) async throws -> GoSpegel {
        let folder = try TemporaryDirectory()
        let archive = "\(folder.path)/image.tar"
        _ = try Tool.run("/bin/tar", ["-C", layout.directory, "-cf", archive, "."])
        let stores = [try await ContainerdDaemon.start(), try await ContainerdDaemon.start()]
        try await stores[0].ctr("images", "import", "--all-platforms", "--no-unpack", archive)
        try FileManager.default.removeItem(atPath: archive)
        var nodes: [ChildProcess] = []
        for (index, store) in stores.enumerated() {
            let address = BenchmarkNamespace.addresses[index]
            nodes.append(
                try await ChildProcess.start(
                    [
                        path, "registry", "--registry-addr", "\(address):5000", "--router-addr", "\(address):5001",
                        "--metrics-addr", "\(address):9090", "--containerd-sock", store.socketPath,
                        "--containerd-namespace", "k8s.io", "--containerd-content-path", store.contentPath,
                        "--bootstrap-kind", "http", "--http-bootstrap-addr", "\(address):5002",
                        "--http-bootstrap-url", "http://\(BenchmarkNamespace.addresses[0]):5002/id",
                    ], output: (folder.path, "node\(index)")))
        }
        let cluster = GoSpegel(path, stores, nodes, folder)
        try await cluster.waitUntilServing(layout)
        return cluster
    }

    private init(_ path: String, _ stores: [ContainerdDaemon], _ nodes: [ChildProcess], _ folder: TemporaryDirectory) {
        name = "--go-spegel"
        self.stores = stores
        self.nodes = nodes
        self.folder = folder
    }

    private func waitUntilServing(_ layout: ServedLayout) async throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)
        defer { buffer.deallocate() }
        for path in [manifestPath(layout)] + layout.smallPaths {
            _ = try await eventually("the second node serves \(path)", detail: { nodes.map(\.errors).joined() }) {
                guard nodes.allSatisfy(\.isRunning) else { throw BenchmarkError("a node of --go-spegel has ended") }
                return try? ClientSocket(host: host, port: port).get(path, buffer: buffer)
            }
        }
    }

    func blobPath(_ layout: ServedLayout) -> String { layout.layerPath }
    func manifestPath(_ layout: ServedLayout) -> String { layout.manifestPath }

    func stop() {
        for node in nodes { node.send(SIGTERM) }
    }
}
