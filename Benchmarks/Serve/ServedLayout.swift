import ContentStore
import Foundation
import OCIDistribution

/// An OCI image layout in a temporary directory: one image with one large layer and a small manifest, and one with many
/// small layers.
struct ServedLayout {
    let directory: String
    let layer: Digest
    let manifest: Digest
    let manifestBytes: Int
    /// Layers of ``smallBytes`` each.
    let small: [Digest]

    static let repository = "library/benchmark"
    static let smallBytes = 4096
    static let smallCount = 500

    /// The path of the manifest at a registry.
    var manifestPath: String { "/v2/\(Self.repository)/manifests/\(manifest)?ns=docker.io" }
    /// The path of the layer at a registry.
    var layerPath: String { "/v2/\(Self.repository)/blobs/\(layer)?ns=docker.io" }
    /// The paths of the small layers at a registry.
    var smallPaths: [String] { small.map { "/v2/\(Self.repository)/blobs/\($0)?ns=docker.io" } }
    /// The path of content below the directory.
    func filePath(_ digest: Digest) -> String { "/blobs/sha256/\(digest.hex)" }

    /// Writes the layout.
    init(layerMiB: Int) throws {
        directory = NSTemporaryDirectory() + "spegel-benchmark-\(UUID().uuidString)"
        let blobs = directory + "/blobs/sha256"
        try FileManager.default.createDirectory(atPath: blobs, withIntermediateDirectories: true)
        func write(_ bytes: [UInt8]) throws -> Digest {
            let digest = Digest.hash(of: bytes)
            try Data(bytes).write(to: URL(fileURLWithPath: "\(blobs)/\(digest.hex)"))
            return digest
        }
        var hasher = DigestHasher(.sha256)
        let temporary = "\(directory)/layer"
        guard let file = fopen(temporary, "w") else { throw BenchmarkError("cannot write \(temporary)") }
        var piece = [UInt8](repeating: 0, count: 1_048_576)
        for number in 0..<layerMiB {
            for index in stride(from: 0, to: piece.count, by: 64) {
                piece[index] = UInt8(truncatingIfNeeded: number &+ index >> 6)
            }
            guard fwrite(piece, 1, piece.count, file) == piece.count else {
                throw BenchmarkError("cannot write \(temporary): is the disk full?")
            }
            piece.withUnsafeBytes { hasher.update($0) }
        }
        fclose(file)
        layer = hasher.finalize()
        try FileManager.default.moveItem(atPath: temporary, toPath: "\(blobs)/\(layer.hex)")
        let config = try write(
            Array(#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.utf8))
        var text = """
            {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":\
            {"mediaType":"application/vnd.oci.image.config.v1+json","digest":"\(config)","size":78},"layers":[\
            {"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"\(layer)","size":\(layerMiB * 1_048_576)}],\
            "annotations":{"filler":"
            """
        // A manifest of the usual size.
        text += String(repeating: "x", count: max(0, 1536 - text.utf8.count - 4)) + "\"}}"
        manifestBytes = text.utf8.count
        manifest = try write(Array(text.utf8))
        small = try (0..<Self.smallCount).map { number in
            var bytes = [UInt8](repeating: 0x2e, count: Self.smallBytes)
            bytes.replaceSubrange(0..<8, with: withUnsafeBytes(of: UInt64(number), Array.init))
            return try write(bytes)
        }
        let layers = small.map {
            #"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"\#($0)","size":\#(Self.smallBytes)}"#
        }
        let many = """
            {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":\
            {"mediaType":"application/vnd.oci.image.config.v1+json","digest":"\(config)","size":78},\
            "layers":[\(layers.joined(separator: ","))]}
            """
        let manifests = [
            (manifest, manifestBytes, "\(Self.repository):latest"),
            (try write(Array(many.utf8)), many.utf8.count, "\(Self.repository)-many:latest"),
        ].map { digest, size, name in
            """
            {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"\(digest)","size":\(size),\
            "annotations":{"org.opencontainers.image.ref.name":"docker.io/\(name)",\
            "io.containerd.image.name":"docker.io/\(name)"}}
            """
        }
        let index = """
            {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",\
            "manifests":[\(manifests.joined(separator: ","))]}
            """
        try index.write(toFile: "\(directory)/index.json", atomically: true, encoding: .utf8)
        try #"{"imageLayoutVersion":"1.0.0"}"#.write(
            toFile: "\(directory)/oci-layout", atomically: true, encoding: .utf8)
    }

    func remove() { try? FileManager.default.removeItem(atPath: directory) }
}
