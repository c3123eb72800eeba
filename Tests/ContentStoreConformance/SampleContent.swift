import ContentStore
import OCIDistribution

/// Makes content with reproducible bytes.
public struct SampleContent: Sendable {
    /// Content and its descriptor.
    public struct Blob: Sendable, Hashable {
        /// The bytes.
        public let bytes: [UInt8]
        /// Digest, size, and the media type a manifest would give.
        public let descriptor: Descriptor

        /// Creates a blob.
        public init(_ bytes: [UInt8], mediaType: MediaType = .octetStream, algorithm: DigestAlgorithm = .sha256) {
            self.bytes = bytes
            descriptor = Descriptor(
                mediaType: mediaType, digest: Digest.hash(algorithm, of: bytes), size: Int64(bytes.count))
        }

        /// The digest.
        public var digest: Digest { descriptor.digest }
    }

    /// An image of one platform.
    public struct Image: Sendable, Hashable {
        /// The manifest.
        public let manifest: Blob
        /// The config.
        public let config: Blob
        /// The layers, base first.
        public let layers: [Blob]
        /// The processor it is for, in an index and in the config.
        public let architecture: String

        /// Everything, the manifest first.
        public var blobs: [Blob] { [manifest, config] + layers }
        /// All digests.
        public var digests: Set<Digest> { Set(blobs.map(\.digest)) }
    }

    private var state: UInt64

    /// Creates a source of content; equal seeds give equal content.
    public init(seed: UInt64) { state = seed }

    private mutating func next() -> UInt64 {
        // SplitMix64.
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// Bytes that look random. The first one is never that of JSON or of a compressed layer.
    public mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count { withUnsafeBytes(of: next().littleEndian) { bytes += $0 } }
        bytes.removeLast(bytes.count - count)
        if !bytes.isEmpty { bytes[0] = 0x41 }
        return bytes
    }

    /// A layer, not compressed.
    public mutating func layer(size: Int = 3000) -> Blob { Blob(bytes(size), mediaType: .layer) }

    /// An image with a config that names the layers' diffIDs.
    public mutating func image(layers: [Blob]? = nil, architecture: String = "amd64", docker: Bool = false) -> Image {
        let layers = layers ?? [layer(), layer()]
        let diffIDs = layers.map { #""\#($0.digest)""# }.joined(separator: ",")
        let config = Blob(
            Array(
                #"{"architecture":"\#(architecture)","os":"linux","author":"\#(next())","rootfs":{"type":"layers","diff_ids":[\#(diffIDs)]}}"#
                    .utf8), mediaType: docker ? .dockerConfig : .imageConfig)
        return Image(
            manifest: Self.manifest(config: config, layers: layers, docker: docker), config: config, layers: layers,
            architecture: architecture)
    }

    /// An index over images, with their platforms: clients take an entry without one for every platform's.
    public static func index(_ images: [Image], docker: Bool = false) -> Blob {
        let mediaType: MediaType = docker ? .dockerManifestList : .imageIndex
        let manifests = images.map { image in
            json(
                image.manifest.descriptor,
                and: #","platform":{"architecture":"\#(image.architecture)","os":"linux"}"#)
        }.joined(separator: ",")
        return Blob(
            Array(#"{"schemaVersion":2,"mediaType":"\#(mediaType)","manifests":[\#(manifests)]}"#.utf8),
            mediaType: mediaType)
    }

    /// A manifest.
    ///
    /// - Parameter saysMediaType: whether the document has a `mediaType` field; without one its shape must do.
    public static func manifest(
        config: Blob, layers: [Blob], docker: Bool = false, saysMediaType: Bool = true
    ) -> Blob {
        let mediaType: MediaType = docker ? .dockerManifest : .imageManifest
        let field = saysMediaType ? #""mediaType":"\#(mediaType)","# : ""
        let list = layers.map { json($0.descriptor) }.joined(separator: ",")
        return Blob(
            Array(#"{"schemaVersion":2,\#(field)"config":\#(json(config.descriptor)),"layers":[\#(list)]}"#.utf8),
            mediaType: mediaType)
    }

    private static func json(_ descriptor: Descriptor, and more: String = "") -> String {
        #"{"mediaType":"\#(descriptor.mediaType)","digest":"\#(descriptor.digest)","size":\#(descriptor.size)\#(more)}"#
    }
}

extension ConformanceBackend {
    /// Makes a blob present.
    public func put(_ blob: SampleContent.Blob) async throws { try await put(blob.bytes, as: blob.digest) }

    /// Makes an image's content present, its manifest last, as a pull does.
    public func put(_ image: SampleContent.Image) async throws {
        for blob in image.blobs.reversed() { try await put(blob) }
    }
}
