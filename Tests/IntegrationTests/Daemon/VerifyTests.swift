import Foundation
import TestSupport
import Testing

/// `spegel verify` on layouts that are sound, and on ones that are not.
@Suite struct VerifyTests {
    private func verify(_ path: String) async throws -> Command.Result {
        try await Command.run(try Project.program(), "verify", path)
    }

    @Test func soundLayout() async throws {
        let layout = try await TestImages.small()
        let result = try await verify(layout.path)
        #expect(result.status == .exited(0), "\(result)")
        #expect(result.output.contains("diffIDs match: sound"))
        #expect(!result.output.contains("\u{1b}"), "no colours away from a terminal")
        #expect(result.errors == "")
    }

    enum Damage: String, CaseIterable {
        case altered, truncated, missing, wrongDiffID
    }

    @Test(arguments: Damage.allCases) func damage(_ damage: Damage) async throws {
        let directory = try TemporaryDirectory()
        let layout = try await TestImages.small().copy(to: directory.path("layout"))
        let digest: String
        switch damage {
        case .altered:
            digest = try layout.largestLayer(of: TestImages.demo).digest
            let file = try FileHandle(forUpdating: URL(fileURLWithPath: layout.file(of: digest)))
            try file.seek(toOffset: 1000)
            let byte = try #require(try file.read(upToCount: 1)?.first)
            try file.seek(toOffset: 1000)
            try file.write(contentsOf: [byte ^ 1])
        case .truncated:
            digest = try layout.largestLayer(of: TestImages.demo).digest
            try FileHandle(forUpdating: URL(fileURLWithPath: layout.file(of: digest))).truncate(atOffset: 1000)
        case .missing:
            digest = try layout.largestLayer(of: TestImages.demo).digest
            try FileManager.default.removeItem(atPath: layout.file(of: digest))
        case .wrongDiffID:
            digest = try await swapDiffIDs(in: layout)
        }
        let result = try await verify(layout.path)
        #expect(result.status == .exited(1), "\(result)")
        #expect(result.output.contains(digest), "\(result.output)")
        #expect(result.output.contains("bad"))
    }

    /// Rewrites the amd64 image with its last two diffIDs swapped, everything else consistent.
    ///
    /// - Returns: The digest of the manifest.
    private func swapDiffIDs(in layout: TestLayout) async throws -> String {
        func store(_ object: [String: Any]) async throws -> (digest: String, size: Int) {
            let data = try JSONSerialization.data(
                withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes])
            let file = "\(layout.path)/new"
            try data.write(to: URL(fileURLWithPath: file))
            let hex = String(try await Command.check("sha256sum", file).prefix(64))
            try FileManager.default.moveItem(atPath: file, toPath: layout.file(of: "sha256:\(hex)"))
            return ("sha256:\(hex)", data.count)
        }
        let old = try #require(try layout.digests(of: TestImages.demo, architecture: "amd64").dropFirst().first)
        var manifest = try layout.manifest(old)
        var descriptor = try #require(manifest["config"] as? [String: Any])
        var config = try layout.manifest(try #require(descriptor["digest"] as? String))
        var rootfs = try #require(config["rootfs"] as? [String: Any])
        var diffIDs = try #require(rootfs["diff_ids"] as? [String])
        diffIDs.swapAt(diffIDs.count - 1, diffIDs.count - 2)
        rootfs["diff_ids"] = diffIDs
        config["rootfs"] = rootfs
        let newConfig = try await store(config)
        descriptor["digest"] = newConfig.digest
        descriptor["size"] = newConfig.size
        manifest["config"] = descriptor
        let newManifest = try await store(manifest)
        let type = "application/vnd.oci.image.manifest.v1+json"
        let index: [String: Any] = [
            "schemaVersion": 2,
            "manifests": [
                [
                    "mediaType": type, "digest": newManifest.digest, "size": newManifest.size,
                    "annotations": ["org.opencontainers.image.ref.name": TestImages.demo],
                ] as [String: Any]
            ],
        ]
        try JSONSerialization.data(withJSONObject: index).write(to: URL(fileURLWithPath: "\(layout.path)/index.json"))
        return newManifest.digest
    }

    @Test func noLayout() async throws {
        let directory = try TemporaryDirectory()
        for path in [directory.path("absent"), directory.path, "/dev/null"] {
            let result = try await verify(path)
            #expect(result.status == .exited(64), "\(result)")
            #expect(result.errors.contains(path) && result.errors.split(separator: "\n").count == 1, "\(result.errors)")
        }
        #expect(try await Command.run(try Project.program(), "verify").status == .exited(64))
    }
}
