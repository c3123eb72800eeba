/// A typed, sized and content-addressed pointer (OCI image specification, descriptor.md).
public struct Descriptor: Sendable, Hashable, Codable {
    /// The type of the content; ``MediaType/octetStream`` where a document left it out.
    public var mediaType: MediaType
    /// The digest of the content.
    public var digest: Digest
    /// The size of the content in bytes, never negative when decoded.
    public var size: Int64
    /// Places the content may be downloaded from.
    public var urls: [String]?
    /// Arbitrary metadata.
    public var annotations: [String: String]?
    /// The content itself, in base64.
    public var data: String?
    /// The platform an image runs on, in an index.
    public var platform: Platform?
    /// The type of the artifact a manifest describes.
    public var artifactType: MediaType?

    /// Makes a descriptor; `size` is in bytes.
    public init(
        mediaType: MediaType, digest: Digest, size: Int64, urls: [String]? = nil,
        annotations: [String: String]? = nil, data: String? = nil, platform: Platform? = nil,
        artifactType: MediaType? = nil
    ) {
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        self.urls = urls
        self.annotations = annotations
        self.data = data
        self.platform = platform
        self.artifactType = artifactType
    }

    private enum CodingKeys: String, CodingKey {
        case mediaType, digest, size, urls, annotations, data, platform, artifactType
    }

    /// Decodes a descriptor.
    ///
    /// - Throws: `DecodingError` when digest or size are missing or invalid. Everything else is optional and is ignored
    ///   when it is of another type.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        mediaType = container.lenient(.mediaType) ?? .octetStream
        digest = try container.decode(Digest.self, forKey: .digest)
        size = try Self.decodeSize(container)
        urls = container.lenient(.urls)
        annotations = container.lenientStrings(.annotations)
        data = container.lenient(.data)
        platform = container.lenient(.platform)
        artifactType = container.lenient(.artifactType)
    }

    private static func decodeSize(_ container: KeyedDecodingContainer<CodingKeys>) throws -> Int64 {
        func invalid(_ reason: String) -> DecodingError {
            .dataCorruptedError(forKey: .size, in: container, debugDescription: "the size \(reason)")
        }
        guard container.contains(.size) else {
            throw DecodingError.keyNotFound(
                CodingKeys.size, .init(codingPath: container.codingPath, debugDescription: "no size"))
        }
        guard let size = try? container.decode(Int64.self, forKey: .size) else {
            throw invalid("is not a whole number of at most 63 bits")
        }
        guard size >= 0 else { throw invalid("is negative: \(size)") }
        return size
    }
}

/// The platform an image runs on (OCI image specification, image-index.md, "platform").
public struct Platform: Sendable, Hashable, Codable {
    /// The processor, as in GOARCH: `amd64`, `arm64` …
    public var architecture: String
    /// The operating system, as in GOOS: `linux`, `windows` …
    public var os: String
    /// The version of the operating system, where it matters.
    public var osVersion: String?
    /// Features the operating system must have.
    public var osFeatures: [String]?
    /// The variant of the processor, such as `v7` or `v8`.
    public var variant: String?

    /// Makes a platform.
    public init(
        architecture: String, os: String, osVersion: String? = nil, osFeatures: [String]? = nil, variant: String? = nil
    ) {
        self.architecture = architecture
        self.os = os
        self.osVersion = osVersion
        self.osFeatures = osFeatures
        self.variant = variant
    }

    private enum CodingKeys: String, CodingKey {
        case architecture, os, variant
        case osVersion = "os.version"
        case osFeatures = "os.features"
    }

    /// Decodes a platform; missing fields are empty.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        architecture = container.lenient(.architecture) ?? ""
        os = container.lenient(.os) ?? ""
        osVersion = container.lenient(.osVersion)
        osFeatures = container.lenient(.osFeatures)
        variant = container.lenient(.variant)
    }
}

extension Platform: CustomStringConvertible {
    /// `os/architecture[/variant]`, as tools write it.
    public var description: String {
        variant.map { "\(os)/\(architecture)/\($0)" } ?? "\(os)/\(architecture)"
    }
}
