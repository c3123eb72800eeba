import Foundation
import OCIDistribution

/// An OCI image layout in a temporary directory with three images: one with a large layer, one with many small layers, and
/// one with layers of medium size. All content is reachable from a manifest, so that containerd imports and keeps it.
final class BenchmarkImages: Sendable {
    /// Something that can be asked for.
    struct Content: Sendable {
        var kind: String
        var digest: Digest
        var bytes: Int

        /// Its path at a registry, with the upstream that it is mirrored of.
        var registryPath: String { "/v2/\(BenchmarkImages.repository)/\(kind)/\(digest)?ns=docker.io" }
        /// Its path below the layout's directory.
        var filePath: String { "/blobs/sha256/\(digest.hex)" }
    }

    static let repository = "library/benchmark"
    static let small = (bytes: 4096, count: 500)
    static let medium = (bytes: 1 << 20, count: 256)

    let directory: String
    let layer: Content
    let manifest: Content
    let smallLayers: [Content]
    let mediumLayers: [Content]

    /// Writes the layout.
    ///
    /// - Parameter layerBytes: the size of the large layer.
    init(layerBytes: Int) throws {
        directory = NSTemporaryDirectory() + "spegel-benchmark-\(UUID().uuidString)"
        let blobs = directory + "/blobs/sha256"
        try FileManager.default.createDirectory(atPath: blobs, withIntermediateDirectories: true)
        func write(_ bytes: [UInt8], _ kind: String = "blobs") throws -> Content {
            let digest = Digest.hash(of: bytes)
            try Data(bytes).write(to: URL(fileURLWithPath: "\(blobs)/\(digest.hex)"))
            return Content(kind: kind, digest: digest, bytes: bytes.count)
        }
        func layers(_ shape: (bytes: Int, count: Int)) throws -> [Content] {
            try (0..<shape.count).map { number in
                var bytes = [UInt8](repeating: 0x2e, count: shape.bytes)
                bytes.replaceSubrange(0..<8, with: withUnsafeBytes(of: UInt64(number), Array.init))
                return try write(bytes)
            }
        }
        layer = try Self.writeLarge(layerBytes, blobs)
        smallLayers = try layers(Self.small)
        mediumLayers = try layers(Self.medium)
        let configText = #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#
        let config = try write(Array(configText.utf8))
        func image(_ layers: [Content], padded size: Int = 0) throws -> Content {
            let list = layers.map { Self.descriptor("image.layer.v1.tar", $0) }.joined(separator: ",")
            let text =
                #"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#
                + #""config":\#(Self.descriptor("image.config.v1+json", config)),"layers":[\#(list)],"#
            let filler = String(repeating: "x", count: max(0, size - text.utf8.count - 32))
            return try write(Array((text + #""annotations":{"filler":"\#(filler)"}}"#).utf8), "manifests")
        }
        // A manifest of the usual size.
        manifest = try image([layer], padded: 1536)
        let images = [(manifest, ""), (try image(smallLayers), "-small"), (try image(mediumLayers), "-medium")]
        let manifests = images.map { content, suffix in
            let name = "docker.io/\(Self.repository)\(suffix):latest"
            let names = #"{"org.opencontainers.image.ref.name":"\#(name)","io.containerd.image.name":"\#(name)"}"#
            return Self.descriptor("image.manifest.v1+json", content).dropLast() + #","annotations":\#(names)}"#
        }
        let index =
            #"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","#
            + #""manifests":[\#(manifests.joined(separator: ","))]}"#
        try index.write(toFile: "\(directory)/index.json", atomically: true, encoding: .utf8)
        try #"{"imageLayoutVersion":"1.0.0"}"#.write(
            toFile: "\(directory)/oci-layout", atomically: true, encoding: .utf8)
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    private static func descriptor(_ type: String, _ content: Content) -> String {
        #"{"mediaType":"application/vnd.oci.\#(type)","digest":"\#(content.digest)","size":\#(content.bytes)}"#
    }

    /// In pieces, as it may be larger than what this process may keep in memory.
    private static func writeLarge(_ bytes: Int, _ blobs: String) throws -> Content {
        let temporary = "\(blobs)/../large"
        guard let file = fopen(temporary, "w") else { throw BenchmarkError("cannot write \(temporary)") }
        defer { fclose(file) }
        var hasher = DigestHasher(.sha256)
        var piece = [UInt8](repeating: 0, count: 1 << 20)
        var (written, number) = (0, 0)
        while written < bytes {
            for index in stride(from: 0, to: piece.count, by: 64) {
                piece[index] = UInt8(truncatingIfNeeded: number &+ index >> 6)
            }
            let count = min(piece.count, bytes - written)
            guard fwrite(piece, 1, count, file) == count else {
                throw BenchmarkError("cannot write \(temporary): is the disk full?")
            }
            piece.withUnsafeBytes { hasher.update(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            written += count
            number += 1
        }
        fflush(file)
        let digest = hasher.finalize()
        try FileManager.default.moveItem(atPath: temporary, toPath: "\(blobs)/\(digest.hex)")
        return Content(kind: "blobs", digest: digest, bytes: bytes)
    }
}
