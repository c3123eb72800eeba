import Foundation
import TestSupport
import Testing

/// buildah unpacks what it pulls, so layers and diffIDs are checked by it.
@Suite struct BuildahTests {
    @Test func pullsByTagAndByDigest() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let directory = try TemporaryDirectory()
        let policy = try directory.write(#"{"default":[{"type":"insecureAcceptAnything"}]}"#, to: "policy.json")
        let global = [
            "--root", directory.path("root"), "--runroot", directory.path("run"), "--storage-driver", "vfs",
        ]
        let environment = ["TMPDIR": directory.path, "XDG_RUNTIME_DIR": directory.path]
        let digest = try layout.digest(of: TestImages.demo)
        for source in [TestImages.demo, "docker.io/library/demo@\(digest)"] {
            let output = try await Command.check(
                ["buildah"] + global + [
                    "pull", "--quiet", "--tls-verify=false", "--signature-policy", policy,
                    "docker://\(daemon.registry)/\(source)",
                ], environment: environment)
            // What is printed is the image's ID: the digest of its config.
            let id = output.trimmingCharacters(in: .whitespacesAndNewlines)
            let config = try layout.blob("sha256:\(id)")
            #expect(String(decoding: config, as: UTF8.self).contains("rootfs"))
        }
        // The storage holds files, mounts none, and is writable for its owner only after this.
        try await Command.check(["buildah"] + global + ["rmi", "--all", "--force"], environment: environment)
    }
}
