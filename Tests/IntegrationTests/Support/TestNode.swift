import Foundation
import TestSupport

/// A node of a cluster: a containerd, and a daemon over it that knows the other nodes by the first one's record.
final class TestNode: Sendable {
    let containerd: TestContainerd
    let daemon: TestDaemon

    /// Starts a node.
    ///
    /// - Parameters:
    ///   - first: the address of the node by which the others find the cluster; nil for that one itself.
    ///   - mounted: whether the daemon can read containerd's content as files.
    static func start(joining first: TestNode?, mounted: Bool) async throws -> TestNode {
        let containerd = try await TestContainerd.start()
        let address = LoopbackAddress.next()
        var arguments = [
            "--containerd-sock", containerd.socket, "--bootstrap-kind", "http", "--http-bootstrap-addr",
            "\(address):5002", "--http-bootstrap-url", "http://\(first?.daemon.address ?? address):5002/id",
            // A busy machine takes longer than the usual 20 ms for a lookup.
            "--mirror-resolve-timeout", "10s",
        ]
        if !mounted { arguments += ["--containerd-content-path", "/nonexistent/content"] }
        let daemon = try await TestDaemon.start(
            store: "containerd", address: address, ports: .usual, arguments: arguments)
        return TestNode(containerd: containerd, daemon: daemon)
    }

    private init(containerd: TestContainerd, daemon: TestDaemon) {
        self.containerd = containerd
        self.daemon = daemon
    }

    /// Waits until the daemon knows its containerd and a peer.
    func untilReady() async throws {
        _ = try await daemon.process.until("readiness") { () -> Bool? in
            try await daemon.request("GET", "/readyz").status == 200 ? true : nil
        }
    }

    /// Pulls as a kubelet would: the daemon first, then the upstream.
    func pull(_ name: String, from upstream: TestUpstream) async throws {
        let hosts = try containerd.hosts(registry: upstream.host, mirror: daemon.registry, upstream: upstream.host)
        try await containerd.ctr(
            "images", "pull", "--hosts-dir", hosts, "--plain-http", "--snapshotter", "native", "--platform",
            "linux/amd64", name)
    }

    /// Waits until the cluster, asked by way of this node, names another one for each digest or tagged name.
    func untilNamed(_ keys: [String], at other: TestNode) async throws {
        for key in keys {
            _ = try await daemon.process.until("\(key) being found at \(other.daemon.address)") { () -> Bool? in
                let result = try await Command.run(
                    try Project.program(), "dht", "find", key, "--dht-nodes",
                    "\(daemon.address):\(TestDaemon.Ports.usual.router)", "--dht-timeout", "60s", "--format", "json")
                guard result.status == .exited(0) else { return nil }
                let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
                let providers = object?["providers"] as? [[String: Any]] ?? []
                let addresses = providers.flatMap { $0["addresses"] as? [String] ?? [] }
                return addresses.contains(other.daemon.address) ? true : nil
            }
        }
    }

    /// Waits until this node's daemon finds content of an image at its peers or here.
    func untilFound(_ digests: [String], tag: String, repository: String, of upstream: TestUpstream) async throws {
        for digest in digests {
            let kinds = ["manifests", "blobs"]
            _ = try await daemon.process.until("\(digest) being found") { () -> Bool? in
                for kind in kinds {
                    let uri = "/v2/\(repository)/\(kind)/\(digest)?ns=\(upstream.host)"
                    if try await daemon.request("HEAD", uri).status == 200 { return true }
                }
                return nil
            }
        }
        _ = try await daemon.process.until("the tag being found") { () -> Bool? in
            let uri = "/v2/\(repository)/manifests/\(tag)?ns=\(upstream.host)"
            return try await daemon.request("HEAD", uri).status == 200 ? true : nil
        }
    }
}
