import Foundation
import MirrorServer
import TestSupport
import Testing

/// skopeo, which stands for podman, buildah and CRI-O too: they use the same library.
@Suite struct SkopeoTests {
    private func expectSame(_ copy: TestLayout, _ name: String, _ layout: TestLayout) throws {
        for digest in try layout.digests(of: name) {
            let expected = try layout.blob(digest)
            #expect(try copy.blob(digest) == expected, "\(digest)")
        }
    }

    /// The registry as the first element of the path, by tag and by digest, with every platform.
    @Test func copiesImages() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let directory = try TemporaryDirectory()
        for (number, name) in [TestImages.demo, TestImages.shared, TestImages.artifact].enumerated() {
            let digest = try layout.digest(of: name)
            let untagged = try #require(name.split(separator: ":").first.map(String.init))
            for (kind, source) in [("tag", name), ("digest", "\(untagged)@\(digest)")] {
                let target = directory.path("\(kind)\(number)")
                try await Command.check(
                    "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests",
                    "--src-tls-verify=false", "docker://\(daemon.registry)/\(source)", "oci:\(target):\(name)")
                try expectSame(TestLayout(path: target), name, layout)
            }
        }
    }

    /// Docker's media types survive only in skopeo's own directory format.
    @Test func copiesDockerImages() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let directory = try TemporaryDirectory()
        try await Command.check(
            "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false",
            "docker://\(daemon.registry)/\(TestImages.docker)", "dir:\(directory.path("copy"))")
        for digest in try layout.digests(of: TestImages.docker) {
            let hex = digest.replacingOccurrences(of: "sha256:", with: "")
            let isTop = try layout.digest(of: TestImages.docker) == digest
            let names = isTop ? ["manifest.json"] : ["\(hex).manifest.json", hex]
            let files = names.map { directory.path("copy/\($0)") }
            let file = try #require(files.first { FileManager.default.fileExists(atPath: $0) }, "\(digest)")
            let expected = try layout.blob(digest)
            #expect(try Data(contentsOf: URL(fileURLWithPath: file)) == expected)
        }
    }

    /// A client that is configured with a mirror does not say which registry it means; that is the default one.
    @Test func usesTheDaemonAsMirror() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path, arguments: ["--default-registry", "docker.io"])
        let directory = try TemporaryDirectory()
        let configuration = try directory.write(
            """
            [[registry]]
            prefix = "docker.io"
            location = "127.0.0.1:1"
            insecure = true
            [[registry.mirror]]
            location = "\(daemon.registry)"
            insecure = true
            """, to: "registries.conf")
        let target = directory.path("copy")
        try await Command.check(
            "skopeo", "--insecure-policy", "--registries-conf", configuration, "copy", "--quiet", "--all",
            "--preserve-digests", "docker://\(TestImages.demo)", "oci:\(target):\(TestImages.demo)")
        try expectSame(TestLayout(path: target), TestImages.demo, layout)
    }

    @Test func inspects() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let output = try await Command.check(
            "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://\(daemon.registry)/\(TestImages.demo)")
        #expect(try Data(output.utf8) == layout.blob(layout.digest(of: TestImages.demo)))
        let config = try await Command.check(
            "skopeo", "inspect", "--config", "--tls-verify=false", "--override-arch", "arm64", "--override-os", "linux",
            "docker://\(daemon.registry)/\(TestImages.demo)")
        #expect(config.contains("\"architecture\": \"arm64\""))
    }

    /// A layout that another program fills while the daemon serves it.
    @Test func servesWhatSkopeoAdds() async throws {
        let layout = try await TestImages.small()
        let directory = try TemporaryDirectory()
        let path = directory.path("layout")
        func copy(_ name: String) async throws {
            try await Command.check(
                "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests",
                "oci:\(layout.path):\(name)", "oci:\(path):\(name)")
        }
        try await copy(TestImages.demo)
        let daemon = try await TestDaemon.start(store: path)
        // What is there when the log is begun is only counted.
        _ = try await daemon.process.until("the store being listed") { () -> Bool? in
            let status: MirrorNode.Status = try await DebugInterface.document("status", of: daemon.address)
            return status.store?.isListed == true ? true : nil
        }
        #expect(try await daemon.request("HEAD", "/v2/acme/second/manifests/v2?ns=quay.io").status == 404)
        try await copy(TestImages.shared)
        let digest = try layout.digest(of: TestImages.shared)
        _ = try await daemon.process.until("the new image") { () -> Bool? in
            let response = try await daemon.request("HEAD", "/v2/acme/second/manifests/v2?ns=quay.io")
            return response.status == 200 && response.header("docker-content-digest") == digest ? true : nil
        }
        _ = try await daemon.process.until("the event's log line") { () -> Bool? in
            daemon.log.contains {
                $0.message == "OCI event" && $0["key"] as? String == TestImages.shared
                    && $0["type"] as? String == "CREATE"
            } ? true : nil
        }
    }
}
