import ContentStoreConformance
import Foundation
import OCIDistribution

/// An image to be rolled out: an index, a manifest, a config, one large layer and smaller ones, all with bytes of its own.
struct ClusterImage: Sendable {
    let tag: String
    /// The layout as a directory, and as an archive for `ctr images import`.
    let directory: String
    let archive: String
    /// All content, in bytes.
    let bytes: Int
    let index: Digest
    let manifest: Digest
    let blobs: [(digest: Digest, bytes: Int)]

    static let repository = "bench/app"

    /// Writes the image.
    ///
    /// - Parameters:
    ///   - name: with which `ctr` imports it.
    ///   - bytes: about its size.
    ///   - seed: other seeds give other content.
    init(tag: String, name: String, bytes: Int, seed: UInt64, in folder: String) throws {
        self.tag = tag
        directory = "\(folder)/\(tag)"
        archive = "\(directory).tar"
        var source = SampleContent(seed: seed)
        let small = [Int](repeating: 16 << 10, count: 4) + [Int](repeating: max(64 << 10, bytes / 64), count: 4)
        let layers = (small + [max(1 << 20, bytes - small.reduce(0, +))]).map { source.layer(size: $0) }
        let image = source.image(layers: layers)
        let index = SampleContent.index([image])
        let content = [index] + image.blobs
        self.index = index.digest
        manifest = image.manifest.digest
        blobs = ([image.config] + image.layers).map { ($0.digest, $0.bytes.count) }
        self.bytes = content.map(\.bytes.count).reduce(0, +)
        try FileManager.default.createDirectory(atPath: "\(directory)/blobs/sha256", withIntermediateDirectories: true)
        for blob in content {
            try Data(blob.bytes).write(to: URL(fileURLWithPath: "\(directory)/blobs/sha256/\(blob.digest.hex)"))
        }
        let entry =
            #"{"mediaType":"\#(index.descriptor.mediaType)","digest":"\#(index.digest)","size":\#(index.bytes.count),"#
            + #""annotations":{"io.containerd.image.name":"\#(name)","org.opencontainers.image.ref.name":"\#(tag)"}}"#
        try #"{"schemaVersion":2,"manifests":[\#(entry)]}"#.write(
            toFile: "\(directory)/index.json", atomically: true, encoding: .utf8)
        try #"{"imageLayoutVersion":"1.0.0"}"#.write(
            toFile: "\(directory)/oci-layout", atomically: true, encoding: .utf8)
        _ = try Tool.run("/bin/tar", ["-C", directory, "-cf", archive, "."])
    }

    func remove() {
        for path in [directory, archive] { try? FileManager.default.removeItem(atPath: path) }
    }
}
