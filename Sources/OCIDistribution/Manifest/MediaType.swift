/// A media type (RFC 6838) of OCI or Docker content. Any string is accepted; well-known types have constants.
public struct MediaType: RawRepresentable, Hashable, Sendable {
    /// The media type as it is written, without parameters.
    public let rawValue: String

    /// Takes any string.
    public init(rawValue: String) { self.rawValue = rawValue }

    /// Takes any string.
    public init(_ text: String) { rawValue = text }

    /// Reads the value of a `Content-Type` header: lower-cased, without parameters and white space.
    public init(contentType: some StringProtocol) {
        let type = contentType.utf8.prefix { $0 != 0x3B }.filter { $0 != 0x20 && $0 != 0x09 }
        rawValue = String(decoding: type.map { $0.isUppercase ? $0 | 0x20 : $0 }, as: UTF8.self)
    }
}

extension MediaType {
    /// OCI image index.
    public static let imageIndex = MediaType("application/vnd.oci.image.index.v1+json")
    /// OCI image manifest.
    public static let imageManifest = MediaType("application/vnd.oci.image.manifest.v1+json")
    /// OCI image config.
    public static let imageConfig = MediaType("application/vnd.oci.image.config.v1+json")
    /// OCI layer, an uncompressed tar archive.
    public static let layer = MediaType("application/vnd.oci.image.layer.v1.tar")
    /// OCI layer compressed with gzip (RFC 1952).
    public static let layerGzip = MediaType("application/vnd.oci.image.layer.v1.tar+gzip")
    /// OCI layer compressed with zstd (RFC 8878).
    public static let layerZstd = MediaType("application/vnd.oci.image.layer.v1.tar+zstd")
    /// OCI non-distributable layer (deprecated by the specification).
    public static let nondistributableLayer = MediaType("application/vnd.oci.image.layer.nondistributable.v1.tar")
    /// OCI non-distributable layer compressed with gzip.
    public static let nondistributableLayerGzip = MediaType(
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    /// OCI non-distributable layer compressed with zstd.
    public static let nondistributableLayerZstd = MediaType(
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd")
    /// The `{}` that stands for an absent config or layer of an artifact.
    public static let empty = MediaType("application/vnd.oci.empty.v1+json")

    /// Docker schema 2 manifest list.
    public static let dockerManifestList = MediaType("application/vnd.docker.distribution.manifest.list.v2+json")
    /// Docker schema 2 manifest.
    public static let dockerManifest = MediaType("application/vnd.docker.distribution.manifest.v2+json")
    /// Docker image config.
    public static let dockerConfig = MediaType("application/vnd.docker.container.image.v1+json")
    /// Docker layer, an uncompressed tar archive.
    public static let dockerLayer = MediaType("application/vnd.docker.image.rootfs.diff.tar")
    /// Docker layer compressed with gzip.
    public static let dockerLayerGzip = MediaType("application/vnd.docker.image.rootfs.diff.tar.gzip")
    /// Docker layer compressed with zstd, which some tools write.
    public static let dockerLayerZstd = MediaType("application/vnd.docker.image.rootfs.diff.tar.zstd")
    /// Docker layer that is not distributed with the image.
    public static let dockerForeignLayerGzip = MediaType("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    /// Docker schema 1 manifest: recognised, but not supported.
    public static let dockerSchema1 = MediaType("application/vnd.docker.distribution.manifest.v1+json")
    /// Signed Docker schema 1 manifest: recognised, but not supported.
    public static let dockerSchema1Signed = MediaType("application/vnd.docker.distribution.manifest.v1+prettyjws")

    /// What content without a better type is served as.
    public static let octetStream = MediaType("application/octet-stream")
    /// JSON, the type of error bodies.
    public static let json = MediaType("application/json")
}

extension MediaType {
    /// How the bytes of a layer are compressed.
    public enum Compression: Sendable, Hashable {
        /// Not at all.
        case none
        /// gzip, RFC 1952.
        case gzip
        /// zstd, RFC 8878.
        case zstd
    }

    /// Whether this is an OCI index or a Docker manifest list.
    public var isIndex: Bool { self == .imageIndex || self == .dockerManifestList }

    /// Whether this is the manifest of one image, OCI or Docker schema 2.
    public var isImageManifest: Bool { self == .imageManifest || self == .dockerManifest }

    /// Whether this is an index or an image manifest, that is, served under `/manifests/`.
    public var isManifest: Bool { isImageManifest || isIndex }

    /// Whether this is a Docker schema 1 manifest, which is not supported.
    public var isDockerSchema1: Bool { self == .dockerSchema1 || self == .dockerSchema1Signed }

    /// Whether this is an image config, OCI or Docker.
    public var isConfig: Bool { self == .imageConfig || self == .dockerConfig }

    /// Whether this is a filesystem layer.
    public var isLayer: Bool { layerCompression != nil }

    /// Whether this is a layer whose bytes a registry need not have.
    public var isNondistributable: Bool {
        self == .nondistributableLayer || self == .nondistributableLayerGzip || self == .nondistributableLayerZstd
            || self == .dockerForeignLayerGzip
    }

    /// The compression this media type declares; nil when it is not a layer.
    public var layerCompression: Compression? {
        switch self {
        case .layer, .nondistributableLayer, .dockerLayer: Compression.none
        case .layerGzip, .nondistributableLayerGzip, .dockerLayerGzip, .dockerForeignLayerGzip: .gzip
        case .layerZstd, .nondistributableLayerZstd, .dockerLayerZstd: .zstd
        default: nil
        }
    }
}

extension MediaType: CustomStringConvertible {
    /// The media type as it is written.
    public var description: String { rawValue }
}

extension MediaType: Codable {
    /// Decodes the media type from its string.
    public init(from decoder: any Decoder) throws {
        rawValue = try decoder.singleValueContainer().decode(String.self)
    }

    /// Encodes the media type as its string.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(rawValue)
    }
}
