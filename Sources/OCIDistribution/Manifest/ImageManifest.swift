/// The manifest of one image or artifact: OCI image manifest (image specification, manifest.md) or Docker schema 2.
public struct ImageManifest: Sendable, Hashable, Codable {
    /// 2 in every manifest; 0 where it was left out.
    public var schemaVersion: Int
    /// The type the manifest says it has; optional in OCI.
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
