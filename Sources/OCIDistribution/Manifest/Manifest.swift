/// An index or an image manifest: what is served under `/manifests/`.
public enum Manifest: Sendable, Hashable {
    /// A list of manifests.
    case index(ImageIndex)
    /// The manifest of one image or artifact.
    case image(ImageManifest)

    /// Documents of more bytes are never parsed: 4 MiB, the limit registries put on manifests.
    public static let maximumSize = 4 << 20

    /// Decodes a manifest.
    ///
    /// - Parameters:
    ///   - json: the document.
    ///   - mediaType: the type it is expected to have, from a descriptor or a `Content-Type`; nil when there is none.
    /// - Throws: ``ManifestError``; ``ManifestError/mediaTypeMismatch(expected:actual:)`` only when an image manifest
    ///   was expected and an index was given or the other way round: Docker's and OCI's types are mixed up in practice.
    public static func decode(
        from json: some Collection<UInt8>, mediaType: MediaType? = nil
    ) throws(ManifestError) -> Manifest {
        let actual = try decodeJSON(ManifestShape.self, from: json).classify()
        if actual.isDockerSchema1 { throw .unsupported(actual) }
        if let mediaType {
            if mediaType.isDockerSchema1 { throw .unsupported(mediaType) }
            let isOther =
                mediaType.isIndex && !actual.isIndex || mediaType.isImageManifest && !actual.isImageManifest
            if isOther { throw .mediaTypeMismatch(expected: mediaType, actual: actual) }
        }
        return actual.isIndex
            ? .index(try decodeJSON(ImageIndex.self, from: json))
            : .image(try decodeJSON(ImageManifest.self, from: json))
    }

    /// What this manifest points to and what must be present for it to be complete: the manifests of an index; config
    /// and layers of an image, in that order. A subject is not among them: it is pointed to, but not needed.
    public var references: [Descriptor] {
        switch self {
        case .index(let index): index.manifests
        case .image(let image): [image.config] + image.layers
        }
    }

    /// The manifest this one refers to, as a signature or an attestation does.
    public var subject: Descriptor? {
        switch self {
        case .index(let index): index.subject
        case .image(let image): image.subject
        }
    }

    /// The `mediaType` field of the document, else the type of its shape.
    public var mediaType: MediaType {
        switch self {
        case .index(let index): index.mediaType ?? .imageIndex
        case .image(let image): image.mediaType ?? .imageManifest
        }
    }

    /// Arbitrary metadata.
    public var annotations: [String: String]? {
        switch self {
        case .index(let index): index.annotations
        case .image(let image): image.annotations
        }
    }
}

/// The manifest of one image or artifact: OCI image manifest (image specification, manifest.md) or Docker schema 2.
public struct ImageManifest: Sendable, Hashable, Codable {
    /// 2 in every manifest; 0 where it was left out.
    public var schemaVersion: Int
    /// The `mediaType` field; optional in OCI.
    public var mediaType: MediaType?
    /// The type of an artifact.
    public var artifactType: MediaType?
    /// The config: an image config, or anything else in an artifact.
    public var config: Descriptor
    /// The layers, base first.
    public var layers: [Descriptor]
    /// The manifest this one refers to, as a signature or an attestation does.
    public var subject: Descriptor?
    /// Arbitrary metadata.
    public var annotations: [String: String]?

    /// The largest number of layers that is decoded.
    public static let maximumLayerCount = 10_000

    /// Makes a manifest.
    public init(
        mediaType: MediaType? = .imageManifest, artifactType: MediaType? = nil, config: Descriptor,
        layers: [Descriptor], subject: Descriptor? = nil, annotations: [String: String]? = nil
    ) {
        schemaVersion = 2
        self.mediaType = mediaType
        self.artifactType = artifactType
        self.config = config
        self.layers = layers
        self.subject = subject
        self.annotations = annotations
    }

    /// Decodes a manifest.
    ///
    /// - Throws: `DecodingError` when config or layers are missing or one of their descriptors is invalid.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        schemaVersion = container.lenient(.schemaVersion) ?? 0
        mediaType = container.lenient(.mediaType)
        artifactType = container.lenient(.artifactType)
        config = try container.decode(Descriptor.self, forKey: .config)
        layers = try container.bounded(.layers, limit: Self.maximumLayerCount)
        subject = container.lenient(.subject)
        annotations = container.lenientStrings(.annotations)
    }
}

/// A list of manifests, one a platform: OCI image index (image specification, image-index.md) or Docker manifest list.
public struct ImageIndex: Sendable, Hashable, Codable {
    /// 2 in every index; 0 where it was left out.
    public var schemaVersion: Int
    /// The `mediaType` field; optional in OCI.
    public var mediaType: MediaType?
    /// The type of an artifact.
    public var artifactType: MediaType?
    /// The manifests, any of which may be an index itself.
    public var manifests: [Descriptor]
    /// The manifest this index refers to.
    public var subject: Descriptor?
    /// Arbitrary metadata.
    public var annotations: [String: String]?

    /// The largest number of manifests that is decoded.
    public static let maximumManifestCount = 10_000

    /// Makes an index.
    public init(
        mediaType: MediaType? = .imageIndex, artifactType: MediaType? = nil, manifests: [Descriptor],
        subject: Descriptor? = nil, annotations: [String: String]? = nil
    ) {
        schemaVersion = 2
        self.mediaType = mediaType
        self.artifactType = artifactType
        self.manifests = manifests
        self.subject = subject
        self.annotations = annotations
    }

    /// Decodes an index.
    ///
    /// - Throws: `DecodingError` when the manifests are missing or one of their descriptors is invalid.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        schemaVersion = container.lenient(.schemaVersion) ?? 0
        mediaType = container.lenient(.mediaType)
        artifactType = container.lenient(.artifactType)
        manifests = try container.bounded(.manifests, limit: Self.maximumManifestCount)
        subject = container.lenient(.subject)
        annotations = container.lenientStrings(.annotations)
    }
}

/// Why a document is not a manifest, index or config that can be used.
public enum ManifestError: Error, Sendable, Hashable, CustomStringConvertible {
    /// Larger than ``Manifest/maximumSize``; sizes in bytes.
    case tooLarge(size: Int, limit: Int)
    /// Not JSON, or a required field is missing or invalid; `path` leads to the place, for example `layers.2.digest`.
    case malformed(path: String, reason: String)
    /// Neither an index nor an image manifest, by media type or shape.
    case notAManifest(reason: String)
    /// Has the fields of both an index and an image manifest, so that readers could take it for either.
    case ambiguous
    /// A Docker schema 1 manifest.
    case unsupported(MediaType)
    /// The document has another type than was expected, by its `mediaType` field or its shape.
    case mediaTypeMismatch(expected: MediaType, actual: MediaType)

    /// A sentence describing what is wrong.
    public var description: String {
        switch self {
        case .tooLarge(let size, let limit): "the document has \(size) bytes, more than the limit of \(limit)"
        case .malformed(let path, let reason):
            path.isEmpty ? "malformed document: \(reason)" : "malformed document at \(path): \(reason)"
        case .notAManifest(let reason): "not a manifest: \(reason)"
        case .ambiguous: "ambiguous manifest: it has the fields of an index and those of an image manifest"
        case .unsupported(let type): "manifests of type \(type) (Docker schema 1) are not supported"
        case .mediaTypeMismatch(let expected, let actual): "expected a manifest of type \(expected), got \(actual)"
        }
    }
}
