import Foundation
import TestSupport
import Testing

/// Nodes with a containerd each, which give each other what they have; an upstream for what nobody has.
@Suite(.serialized) struct ContainerdClusterTests {
    private static let repository = "acme/demo"
    private static let tag = "1.0"

    private func expectSame(_ digests: [String], _ node: TestNode, _ layout: TestLayout) throws {
        for digest in digests {
            let expected = try layout.blob(digest)
            #expect(node.containerd.blob(digest) == expected, "\(digest)")
        }
    }

    @Test(arguments: [true, false])
    func aPullTakesEverythingFromTheNodesThatHaveIt(mounted: Bool) async throws {
        let layout = try await TestImages.small()
        let digests = try layout.digests(of: TestImages.demo, architecture: "amd64")
        let upstream = try await TestUpstream.start()
        try await upstream.push(TestImages.demo, of: layout, to: "\(Self.repository):\(Self.tag)")
        _ = try await upstream.takeRequests()
        let name = "\(upstream.host)/\(Self.repository):\(Self.tag)"

        let first = try await TestNode.start(joining: nil, mounted: mounted)
        let second = try await TestNode.start(joining: first, mounted: mounted)
        try await first.untilReady()
        try await second.untilReady()

        // Nobody has it: the mirror says so and containerd goes on to the upstream.
        try await first.pull(name, from: upstream)
        try expectSame(digests, first, layout)
        let asked = try await upstream.takeRequests(including: digests)
        for digest in digests { #expect(asked.contains { $0.hasSuffix(digest) }, "\(digest) in \(asked)") }

        // The first has it.
        try await second.untilFound(digests, tag: Self.tag, repository: Self.repository, of: upstream)
        try await second.pull(name, from: upstream)
        try expectSame(digests, second, layout)
        #expect(try await upstream.takeRequests() == [])

        // Only the second has it; that the first had it is still what its records say.
        let third = try await TestNode.start(joining: first, mounted: mounted)
        try await third.untilReady()
        // Before anything is looked up, as what was found is kept for a while.
        try await third.untilNamed(digests + [name], at: second)
        try await third.untilFound(digests, tag: Self.tag, repository: Self.repository, of: upstream)
        try await first.containerd.ctr("images", "rm", "--sync", name)
        for digest in digests { #expect(first.containerd.blob(digest) == nil, "\(digest)") }
        try await third.pull(name, from: upstream)
        try expectSame(digests, third, layout)
        #expect(try await upstream.takeRequests() == [])
    }

    @Test(arguments: [true, false])
    func whatWasCollectedEverywhereComesFromTheUpstream(mounted: Bool) async throws {
        let layout = try await TestImages.small()
        let digests = try layout.digests(of: TestImages.demo, architecture: "amd64")
        let upstream = try await TestUpstream.start()
        try await upstream.push(TestImages.demo, of: layout, to: "\(Self.repository):\(Self.tag)")
        let name = "\(upstream.host)/\(Self.repository):\(Self.tag)"
        let first = try await TestNode.start(joining: nil, mounted: mounted)
        let second = try await TestNode.start(joining: first, mounted: mounted)
        try await first.untilReady()
        try await first.pull(name, from: upstream)
        try await second.untilReady()
        try await second.untilFound(digests, tag: Self.tag, repository: Self.repository, of: upstream)
        _ = try await upstream.takeRequests(including: digests)

        try await first.containerd.ctr("images", "rm", "--sync", name)
        for digest in digests { #expect(first.containerd.blob(digest) == nil, "\(digest)") }
        let begin = ContinuousClock.now
        try await second.pull(name, from: upstream)
        print("a pull that falls back to the upstream, mounted: \(mounted): \(ContinuousClock.now - begin)")
        try expectSame(digests, second, layout)
        // The index and the manifest come first; the first node may have them in memory until it has noticed.
        let gone = Array(digests.dropFirst(2))
        let asked = try await upstream.takeRequests(including: gone)
        for digest in gone { #expect(asked.contains { $0.hasSuffix(digest) }, "\(digest) in \(asked)") }
    }

    /// Readiness and metrics tell that containerd is away, and what is known goes on being served from disk.
    @Test func readinessAndMetricsFollowContainerd() async throws {
        let layout = try await TestImages.small()
        let directory = try TemporaryDirectory("c")
        let daemon = try await TestDaemon.start(
            store: "containerd", address: LoopbackAddress.next(),
            arguments: ["--containerd-sock", directory.path("c.sock")])
        func metric(_ name: String) async throws -> String? {
            let text = try await RawConnection(daemon.address, 9090).request("GET", "/metrics").text
            return text.split(separator: "\n").first { $0.hasPrefix("\(name) ") }
                .flatMap { $0.split(separator: " ").last.map(String.init) }
        }
        func until(ready: Bool) async throws {
            _ = try await daemon.process.until("readiness being \(ready)") { () -> Bool? in
                guard try await daemon.request("GET", "/readyz").status == (ready ? 200 : 500) else { return nil }
                return try await metric("spegel_containerd_connected") == (ready ? "1" : "0") ? true : nil
            }
        }
        try await until(ready: false)
        var containerd = try await TestContainerd.start(in: directory)
        try await until(ready: true)
        try await containerd.ctr(
            "images", "import", "--no-unpack", "--all-platforms",
            try await archive(of: layout, in: directory))
        let digest = try layout.largestLayer(of: TestImages.demo).digest
        let uri = "/v2/library/demo/blobs/\(digest)?ns=docker.io"
        _ = try await daemon.process.until("the layer being served") { () -> Bool? in
            try await daemon.request("HEAD", uri).status == 200 ? true : nil
        }
        #expect(try await metric("spegel_containerd_lost_connections") == "0")

        containerd.process.send(SIGKILL)
        try await until(ready: false)
        let response = try await daemon.request("GET", uri)
        let expected = try layout.blob(digest)
        #expect(response.status == 200 && Data(response.body) == expected)
        #expect(try await metric("spegel_containerd_lost_connections") == "1")
        containerd = try await TestContainerd.start(in: directory)
        try await until(ready: true)
    }

    private func archive(of layout: TestLayout, in directory: TemporaryDirectory) async throws -> String {
        let file = directory.path("image.tar")
        try await Command.check("tar", "-cf", file, "-C", layout.path, "oci-layout", "index.json", "blobs")
        return file
    }
}
