import Foundation
import TestSupport

/// Debian's docker-registry as the upstream of a test, which knows from its access log what it was asked for.
final class TestUpstream: Sendable {
    let address: String
    let port: Int
    private let process: ChildProcess
    private let directory: TemporaryDirectory

    /// `host:port`, as in an image's name.
    var host: String { "\(address):\(port)" }

    /// Starts an empty registry and waits until it listens.
    static func start() async throws -> TestUpstream {
        let directory = try TemporaryDirectory("u")
        let address = LoopbackAddress.next()
        let port = try LoopbackAddress.freePort(on: address)
        let configuration = try directory.write(
            """
            version: 0.1
            log: {level: error}
            storage:
              filesystem: {rootdirectory: \(directory.path("data"))}
            http: {addr: "\(address):\(port)"}
            """, to: "config.yml")
        let process = try await ChildProcess.start(["docker-registry", "serve", configuration])
        _ = try await process.until("docker-registry listening") { () -> Bool? in
            (try? RawConnection(address, port)) == nil ? nil : true
        }
        return TestUpstream(address: address, port: port, process: process, directory: directory)
    }

    private init(address: String, port: Int, process: ChildProcess, directory: TemporaryDirectory) {
        self.address = address
        self.port = port
        self.process = process
        self.directory = directory
    }

    /// Copies an image of a layout into a repository.
    func push(_ name: String, of layout: TestLayout, to repository: String) async throws {
        try await Command.check(
            "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false",
            "oci:\(layout.path):\(name)", "docker://\(host)/\(repository)")
    }

    /// Copies an image of a layout under its own repository and tag.
    func push(_ layout: TestLayout, _ name: String) async throws {
        try await push(name, of: layout, to: name.split(separator: "/").dropFirst().joined(separator: "/"))
    }

    /// The requests for content since the last call, as `GET /v2/…`.
    ///
    /// A request of its own marks where the log has got to. A small answer is logged before it is sent. One that is
    /// sent piece by piece is logged after its last byte, so its line may come after the mark, though the client was
    /// done: those that are expected are waited for.
    ///
    /// - Parameter digests: Content that was fetched since the last call.
    func takeRequests(including digests: [String] = []) async throws -> [String] {
        for digest in digests {
            _ = try await process.until("the log of the request for \(digest)") { () -> Bool? in
                Self.afterLastMark(requests[...]).contains { $0.hasPrefix("GET ") && $0.hasSuffix(digest) } ? true : nil
            }
        }
        let marker = "marker-\(UUID().uuidString.lowercased())"
        _ = try await RawConnection(address, port).request("GET", "/v2/\(marker)/tags/list")
        let lines = try await process.until("the access log") { () -> ArraySlice<String>? in
            let lines = requests
            guard let mark = lines.lastIndex(where: { $0.contains(marker) }) else { return nil }
            return lines[..<mark]
        }
        return Self.afterLastMark(lines).filter { $0.contains("/manifests/") || $0.contains("/blobs/") }
    }

    private static func afterLastMark(_ lines: ArraySlice<String>) -> ArraySlice<String> {
        let mark = lines.lastIndex { $0.contains("/v2/marker-") }
        return lines[(mark.map { $0 + 1 } ?? lines.startIndex)...]
    }

    /// Everything in the access log: the request is what is between the first quotation marks.
    private var requests: [String] {
        process.output.split(separator: "\n").compactMap { line in
            let parts = line.split(separator: "\"", omittingEmptySubsequences: false)
            guard parts.count > 1, parts[1].contains(" /v2/") else { return nil }
            return parts[1].split(separator: " ").prefix(2).joined(separator: " ")
        }
    }
}
