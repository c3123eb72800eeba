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
    ///   was expected and an index came or the other way round, as Docker's and OCI's types get mixed up in practice.
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

    /// The type the document says it has, else that of its shape.
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
