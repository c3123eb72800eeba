import Foundation
import TestSupport
import Testing

/// `spegel pull` through the daemon.
@Suite struct PullTests {
    @Test func intoALayout() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let directory = try TemporaryDirectory()
        let output = directory.path("pulled")
        for name in [TestImages.demo, TestImages.docker, TestImages.shared, TestImages.artifact] {
            let result = try await Command.run(
                try Project.program(), "pull", name, "--all-platforms", "--mirror", "http://\(daemon.registry)",
                "--output", output)
            #expect(result.status == .exited(0), "\(result)")
            for digest in try layout.digests(of: name) {
                let expected = try layout.blob(digest)
                #expect(try TestLayout(path: output).blob(digest) == expected)
            }
        }
        // The second image shares the first one's layers.
        let again = try await Command.check(
            try Project.program(), "pull", TestImages.shared, "--all-platforms", "--mirror",
            "http://\(daemon.registry)", "--output", output)
        #expect(again.contains("was there"))
        #expect(try await Command.run(try Project.program(), "verify", output).status == .exited(0))
        // Other tools read what was written.
        let raw = try await Command.check("skopeo", "inspect", "--raw", "oci:\(output):\(TestImages.demo)")
        #expect(try Data(raw.utf8) == layout.blob(layout.digest(of: TestImages.demo)))
    }

    @Test func withoutOutputNothingStays() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let directory = try TemporaryDirectory()
        let result = try await Command.run(
            try Project.program(), "pull", "demo:1.0", "--mirror", "http://\(daemon.registry)",
            environment: ["TMPDIR": directory.path])
        #expect(result.status == .exited(0), "\(result)")
        #expect(result.output.contains("diffIDs match"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
    }

    @Test func failures() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let absent = try await Command.run(
            try Project.program(), "pull", "absent:1.0", "--mirror", "http://\(daemon.registry)")
        #expect(absent.status == .exited(1))
        #expect(absent.errors.contains("not found"), "\(absent)")
        let usage = try await Command.run(try Project.program(), "pull", "UPPER CASE")
        #expect(usage.status == .exited(64), "\(usage)")
    }
}
