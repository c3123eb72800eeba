/// A list of manifests, one a platform: OCI image index (image specification, image-index.md) or Docker manifest list.
public struct ImageIndex: Sendable, Hashable, Codable {
    /// 2 in every index; 0 where it was left out.
    public var schemaVersion: Int
    /// The type the index says it has; optional in OCI.
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
