import ContainerdTestKit
import ContentStoreConformance
import Foundation
import OCIDistribution
import TestSupport
import Testing

@testable import ContainerdContentStore

/// The connection itself, against real containerd.
@Suite(.timeLimit(.minutes(20))) struct ClientTests {
    /// containerd's gRPC server pings for every frame of data; without ``HTTP2PingResponder`` the connection ends after
    /// about 198 calls.
    @Test func oneConnectionLastsForThousandsOfCalls() async throws {
        let daemon = try await ContainerdDaemon.start()
        let client = try ContainerdClient(
            socketPath: daemon.socketPath, namespace: "k8s.io", callTimeout: .seconds(60))
        let running = Task { try await client.run() }
        try await daemon.ctr("namespaces", "create", "k8s.io")
        _ = try await client.version()
        // Three times running, as the list may miss one while others change, and `ctr` had one as well.
        var listed: Set<Substring> = []
        var times = 0
        let first = try await eventually("the connection is listed") { () -> Substring? in
            let now = try connections(to: daemon.socketPath)
            times = now == listed ? times + 1 : 1
            listed = now
            return now.count == 1 && times == 3 ? now.first : nil
        }
        for _ in 0..<1500 { _ = try await client.version() }
        // Answers that are errors take another way through HTTP/2: trailers only, perhaps with a reset.
        var sample = SampleContent(seed: 31)
        let absent = (0..<64).map { _ in sample.layer(size: 100).digest }
        for round in 0..<25 {
            let answers = try await mapConcurrently(absent, limit: 16) { try await client.contentInfo($0) }
            #expect(answers.allSatisfy { $0 == nil }, "round \(round)")
        }
        // No new connection was made for any of it. Asked more than once, as the list may miss one while others change.
        _ = try await eventually("it is still the first connection, and the only one") {
            try connections(to: daemon.socketPath) == [first] ? true : nil
        }
        client.shutdown()
        try await running.value
        try await daemon.stop()
    }

    /// The inodes of the accepted connections of a Unix socket.
    private func connections(to path: String) throws -> Set<Substring> {
        let table = try String(contentsOfFile: "/proc/net/unix", encoding: .utf8)
        var inodes: Set<Substring> = []
        for line in table.split(separator: "\n") {
            let fields = line.split(separator: " ", omittingEmptySubsequences: true)
            // Connected streams are in state 3; the listener is in state 1.
            guard fields.count == 8, fields[5] == "03", fields[7] == path else { continue }
            inodes.insert(fields[6])
        }
        return inodes
    }

    @Test func problemsWithTheSocketAreExplained() async throws {
        let daemon = try await ContainerdDaemon.start()
        try await daemon.stop(SIGKILL)
        try Data().write(to: URL(fileURLWithPath: "\(daemon.path)/file"))
        let expectations = [
            ("\(daemon.path)/none.sock", "does not exist"),
            (daemon.socketPath, "no process listens"),
            ("\(daemon.path)/file", "is not a socket"),
            ("/tmp/" + String(repeating: "x", count: 120), "longer than 107 bytes"),
        ]
        for (path, expected) in expectations {
            let error = #expect(throws: (any Error).self) { try SocketDiagnosis.probe(path) }
            #expect("\(error.map { "\($0)" } ?? "")".contains(expected), "\(path)")
        }
    }

    @Test func missingRightsAreExplained() async throws {
        var options = ContainerdDaemon.Options()
        options.collectsAtOnce = false
        let daemon = try await ContainerdDaemon.start(options)
        _ = try await Self.load("quay.io/a/app:1", into: daemon)
        // The probe runs as the user nobody, which may not use the socket.
        chmod(daemon.path, 0o755)
        // In a folder that programs can be run from, which a memory file system may forbid.
        let folder = try TemporaryDirectory()
        defer { withExtendedLifetime(folder) {} }
        chmod(folder.path, 0o755)
        let program = "\(folder.path)/containerd-probe"
        // By a process that starts no others: one started while the copy is open for writing would keep it busy.
        _ = try await Command.check(["cp", try Project.program("containerd-probe"), program])
        let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
        let denied = try await ChildProcess.start(
            nobody + [program, daemon.socketPath, "k8s.io"], input: .pipe, output: (daemon.path, "denied"))
        _ = try await eventually("the refusal is explained", detail: { denied.output + denied.errors }) {
            denied.write(line: "explanation")
            // Not more than the pipe can hold, should the probe not read for a while.
            try await Task.sleep(for: .milliseconds(50))
            return denied.output.contains("permission denied for containerd's socket") ? true : nil
        }
        // With the socket but without the directory it reads through the service.
        chmod(daemon.socketPath, 0o666)
        let restricted = try await ChildProcess.start(
            nobody + [program, daemon.socketPath, "k8s.io"], input: .pipe, output: (daemon.path, "restricted"))
        restricted.write(line: "wait")
        restricted.write(line: "access")
        restricted.write(line: "counts")
        _ = try await eventually("the access is explained", detail: { restricted.output + restricted.errors }) {
            restricted.output.split(separator: "\n", omittingEmptySubsequences: false).dropLast().contains {
                $0.hasPrefix("counts")
            } ? true : nil
        }
        #expect(restricted.output.contains("permission denied for the content path \(daemon.contentPath)"))
        let listed = try await daemon.listedDigests().count
        #expect(restricted.output.contains("counts 1 \(listed)\n"), "\(restricted.output)")
        try await daemon.stop()
    }

    @Test func aWrongContentPathIsNotServedFrom() async throws {
        let daemon = try await ContainerdDaemon.start()
        let image = try await Self.load("quay.io/a/app:1", into: daemon)
        let other = try TemporaryDirectory()
        try FileManager.default.createDirectory(
            atPath: "\(other.path)/blobs/sha256", withIntermediateDirectories: true)
        for (path, expected) in [
            (other.path, "does not hold what containerd has"), ("\(other.path)/none", "does not exist"),
            (daemon.configurationPath, "not a directory"),
        ] {
            let store = makeStore(daemon, contentPath: path)
            try await store.start()
            try await store.waitUntilIndexed()
            guard case .service(let reason) = store.health.access else {
                Issue.record("\(path) is used: \(store.health)")
                continue
            }
            #expect(reason.contains(expected) && reason.contains(daemon.contentPath), "\(reason)")
            let content = try #require(try await store.open(image.layers[0].digest))
            #expect(try await bytes(of: content) == image.layers[0].bytes)
            await store.shutdown()
        }
        try await daemon.stop()
    }

    @Test func aWrongNamespaceIsExplained() async throws {
        let daemon = try await ContainerdDaemon.start()
        _ = try await Self.load("quay.io/a/app:1", into: daemon)
        let store = makeStore(daemon, namespace: "k8s-io")
        try await store.start()
        try await store.waitUntilIndexed()
        let problem = try #require(store.health.problems.first)
        #expect(problem.contains("no namespace k8s-io") && problem.contains("k8s.io"), "\(problem)")
        await store.shutdown()
        try await daemon.stop()
    }

    private static func load(_ name: String, into daemon: ContainerdDaemon) async throws -> SampleContent.Image {
        var sample = SampleContent(seed: 32)
        let image = sample.image()
        let file = "\(daemon.path)/image.tar"
        try ImageArchive.write([(name, image.manifest.descriptor)], blobs: image.blobs, to: file)
        try await daemon.ctr("images", "import", "--no-unpack", "--all-platforms", file)
        let listed = try await daemon.listedDigests()
        // Importing also adds the archive's index, as long as nothing collects it.
        #expect(listed.isSuperset(of: image.digests.map(\.description)))
        return image
    }
}
