import Foundation
import TestSupport

/// Debian's containerd with root, state and socket of its own.
///
/// Images are unpacked with the native snapshotter, because overlays may not be allowed where the tests run.
final class TestContainerd: Sendable {
    let process: ChildProcess
    private let directory: TemporaryDirectory

    /// The socket.
    var socket: String { directory.path("c.sock") }

    /// Its configuration file.
    var configurationFile: String { directory.path("config.toml") }

    /// A path for files of a test, beside containerd's own.
    func path(_ name: String) -> String { directory.path(name) }

    /// The directory of the content store.
    var contentPath: String { directory.path("root/io.containerd.content.v1.content") }

    /// Starts containerd and waits until it answers.
    ///
    /// - Parameter directory: has everything of it; the same one again for a containerd that starts again.
    static func start(in directory: TemporaryDirectory? = nil) async throws -> TestContainerd {
        let directory = try directory ?? TemporaryDirectory("c")
        let configuration = try directory.write(
            """
            version = 2
            root = "\(directory.path("root"))"
            state = "\(directory.path("state"))"
            disabled_plugins = [
              "io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs",
              "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp",
              "io.containerd.internal.v1.tracing", "io.containerd.internal.v1.opt",
            ]
            [grpc]
              address = "\(directory.path("c.sock"))"
            [ttrpc]
              address = "\(directory.path("t.sock"))"
            """, to: "config.toml")
        let process = try await ChildProcess.start(["containerd", "--config", configuration])
        let containerd = TestContainerd(process: process, directory: directory)
        _ = try await process.until("containerd answering") { () -> Bool? in
            let result = try await containerd.run(["version"])
            return result.status == .exited(0) ? true : nil
        }
        return containerd
    }

    private init(process: ChildProcess, directory: TemporaryDirectory) {
        self.process = process
        self.directory = directory
    }

    /// Runs `ctr` against it, in the namespace that Kubernetes uses. By itself it would give up after 10 s without an
    /// answer.
    func run(_ arguments: [String]) async throws -> Command.Result {
        try await Command.run(
            ["ctr", "--connect-timeout", "1m", "--address", socket, "--namespace", "k8s.io"] + arguments)
    }

    /// Runs `ctr`, which must succeed.
    @discardableResult
    func ctr(_ arguments: String...) async throws -> String {
        let result = try await run(arguments)
        guard result.status == .exited(0) else {
            throw HarnessFailure(
                "ctr \(arguments.joined(separator: " ")): \(result.status)\n\(result.output)\n\(result.errors)\n\(process.log)"
            )
        }
        return result.output
    }

    /// Writes a configuration that sends requests for a registry to a mirror, and has an upstream behind it; a dead one
    /// unless it is given.
    ///
    /// - Returns: The directory for `--hosts-dir`.
    func hosts(registry: String, mirror: String, upstream: String = "127.0.0.1:1") throws -> String {
        try directory.write(
            """
            server = "http://\(upstream)"
            [host."http://\(mirror)"]
              capabilities = ["pull", "resolve"]
            """, to: "hosts/\(registry)/hosts.toml")
        return directory.path("hosts")
    }

    /// The bytes of a blob in the content store, or nil when it is not there.
    func blob(_ digest: String) -> Data? {
        let path = "\(contentPath)/blobs/\(digest.replacingOccurrences(of: ":", with: "/"))"
        return try? Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped)
    }
}
