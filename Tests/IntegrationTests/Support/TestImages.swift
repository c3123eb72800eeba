import Foundation
import OCIDistribution
import TestSupport

/// Image layouts that the tests share; made once and kept between runs.
enum TestImages {
    /// The names in ``small()``.
    static let demo = "docker.io/library/demo:1.0"
    static let docker = "docker.io/library/demo:docker"
    static let shared = "quay.io/acme/second:v2"
    static let artifact = "ghcr.io/acme/table:v1"

    private static let directory = "\(Project.root)/.build/test-images"

    /// A few images of about 2 MiB: OCI, Docker schema 2, one that shares layers with the first, an artifact.
    static func small() async throws -> TestLayout {
        try await make(
            "small", "--size", "2", "--name", demo, "--docker", docker, "--shared", shared, "--artifact", artifact)
    }

    /// The first image again with a layer of 200 MiB.
    static func large() async throws -> TestLayout {
        try await make("large", "--size", "200", "--name", demo)
    }

    /// The first image with a layer of 32 MiB, more than the buffers between two processes hold.
    static func medium() async throws -> TestLayout {
        try await make("medium", "--size", "32", "--name", demo)
    }

    /// The first image with a layer of so many MiB.
    static func sized(_ mebibytes: Int) async throws -> TestLayout {
        try await make("sized-\(mebibytes)", "--size", "\(mebibytes)", "--name", demo)
    }

    private static func make(_ name: String, _ options: String...) async throws -> TestLayout {
        let path = "\(directory)/\(name)"
        try await Command.check(
            ["python3", "\(Project.root)/scripts/make-image", path, "--no-packages"] + options, limit: .seconds(1200))
        return TestLayout(path: path)
    }
}

/// An OCI image layout on disk, read without the code under test.
struct TestLayout: Sendable {
    var path: String

    /// Copies the layout, so that a test may change it.
    func copy(to target: String) async throws -> TestLayout {
        try await Command.check("cp", "-r", path, target)
        return TestLayout(path: target)
    }

    /// The digest that an image's name stands for.
    func digest(of name: String) throws -> String {
        let index = try object(Data(contentsOf: URL(fileURLWithPath: "\(path)/index.json")))
        for manifest in index["manifests"] as? [[String: Any]] ?? [] {
            let annotations = manifest["annotations"] as? [String: String] ?? [:]
            if annotations["io.containerd.image.name"] == name, let digest = manifest["digest"] as? String {
                return digest
            }
        }
        throw HarnessFailure("\(path) has no image \(name)")
    }

    /// The bytes of a blob.
    func blob(_ digest: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: file(of: digest)), options: .alwaysMapped)
    }

    /// The file of a blob.
    func file(of digest: String) -> String {
        "\(path)/blobs/\(digest.replacingOccurrences(of: ":", with: "/"))"
    }

    /// A manifest or index.
    func manifest(_ digest: String) throws -> [String: Any] {
        try object(blob(digest))
    }

    /// Every digest that belongs to an image: its index or manifest, and all below; `architecture` picks one platform.
    func digests(of name: String, architecture: String? = nil) throws -> [String] {
        var found: [String] = []
        func walk(_ digest: String) throws {
            guard !found.contains(digest) else { return }
            found.append(digest)
            let manifest = try manifest(digest)
            for child in manifest["manifests"] as? [[String: Any]] ?? [] {
                let platform = child["platform"] as? [String: String]
                if architecture != nil, platform?["architecture"] != architecture { continue }
                if let digest = child["digest"] as? String { try walk(digest) }
            }
            let config = (manifest["config"] as? [String: Any]).map { [$0] } ?? []
            for blob in config + (manifest["layers"] as? [[String: Any]] ?? []) {
                if let digest = blob["digest"] as? String, !found.contains(digest) { found.append(digest) }
            }
        }
        try walk(digest(of: name))
        return found
    }

    /// The largest layer of an image.
    func largestLayer(of name: String) throws -> (digest: String, size: Int) {
        var largest = (digest: "", size: -1)
        for digest in try digests(of: name) {
            let attributes = try FileManager.default.attributesOfItem(atPath: file(of: digest))
            if let size = attributes[.size] as? Int, size > largest.size { largest = (digest, size) }
        }
        return largest
    }

    private func object(_ data: Data) throws -> [String: Any] {
        guard let object = try JSONSerialization.jsonObject(with: data) as? [String: Any] else {
            throw HarnessFailure("no JSON object in \(path)")
        }
        return object
    }
}
