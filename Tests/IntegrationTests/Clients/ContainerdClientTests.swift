import Foundation
import Testing

/// containerd pulls from the daemon as from a mirror.
@Suite struct ContainerdClientTests {
    private func expectSame(_ digests: [String], _ containerd: TestContainerd, _ layout: TestLayout) throws {
        for digest in digests {
            let expected = try layout.blob(digest)
            #expect(containerd.blob(digest) == expected, "\(digest)")
        }
    }

    /// Index, Docker schema 2 and shared layers, by tag and then by digest.
    @Test func pullsImages() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let containerd = try await TestContainerd.start()
        for name in [TestImages.demo, TestImages.docker, TestImages.shared] {
            let registry = try #require(name.split(separator: "/").first.map(String.init))
            let hosts = try containerd.hosts(registry: registry, mirror: daemon.registry)
            let digest = try layout.digest(of: name)
            let untagged = try #require(name.split(separator: ":").first.map(String.init))
            try await containerd.ctr(
                "images", "pull", "--hosts-dir", hosts, "--plain-http", "--snapshotter", "native", "--platform",
                "linux/amd64", name)
            try expectSame(try layout.digests(of: name, architecture: "amd64"), containerd, layout)
            try await containerd.ctr(
                "images", "pull", "--hosts-dir", hosts, "--plain-http", "--snapshotter", "native", "--all-platforms",
                "\(untagged)@\(digest)")
            try expectSame(try layout.digests(of: name), containerd, layout)
            let list = try await containerd.ctr("images", "list")
            #expect(list.contains(name) && list.contains("\(untagged)@\(digest)"))
        }
    }

    /// A layer of 200 MiB, fetched together with everything else, and byte for byte the same.
    @Test func pullsALargeLayer() async throws {
        let layout = try await TestImages.large()
        let daemon = try await TestDaemon.start(store: layout.path)
        let containerd = try await TestContainerd.start()
        let hosts = try containerd.hosts(registry: "docker.io", mirror: daemon.registry)
        #expect(try layout.largestLayer(of: TestImages.demo).size >= 200_000_000)
        try await containerd.ctr(
            "images", "pull", "--hosts-dir", hosts, "--plain-http", "--snapshotter", "native", "--platform",
            "linux/amd64", TestImages.demo)
        try expectSame(try layout.digests(of: TestImages.demo, architecture: "amd64"), containerd, layout)
    }

    @Test func fetchesContentWithoutUnpacking() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let containerd = try await TestContainerd.start()
        let hosts = try containerd.hosts(registry: "docker.io", mirror: daemon.registry)
        try await containerd.ctr(
            "content", "fetch", "--hosts-dir", hosts, "--plain-http", "--all-platforms", TestImages.demo)
        try expectSame(try layout.digests(of: TestImages.demo), containerd, layout)
    }

    /// What the daemon does not have is for the upstream; here that is dead, so the pull fails instead of hanging.
    @Test func missesGoUpstream() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let containerd = try await TestContainerd.start()
        let hosts = try containerd.hosts(registry: "docker.io", mirror: daemon.registry)
        let result = try await containerd.run([
            "images", "pull", "--hosts-dir", hosts, "--plain-http", "docker.io/library/absent:1.0",
        ])
        #expect(result.status == .exited(1))
        #expect((result.output + result.errors).contains("127.0.0.1:1"), "\(result)")
        _ = try await daemon.process.until("the request in the log") { () -> Bool? in
            daemon.log.contains { ($0["path"] as? String)?.contains("/library/absent/") == true } ? true : nil
        }
    }
}
