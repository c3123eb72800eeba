import OCIDistribution

/// What a store knows of one piece of content.
public struct ContentInfo: Sendable, Hashable {
    /// The content's digest.
    public var digest: Digest
    /// The content's size in bytes.
    public var size: Int64
    /// A manifest's or index's own media type, found from its bytes; `application/octet-stream` for everything else.
    public var mediaType: MediaType
    /// The repositories of the images known to reach this content, sorted, each once. Empty for content that no image
    /// in the store refers to.
    public var sources: [ContentSource]

    /// Creates a description of content.
    public init(digest: Digest, size: Int64, mediaType: MediaType, sources: [ContentSource] = []) {
        self.digest = digest
        self.size = size
        self.mediaType = mediaType
        self.sources = sources
    }

    /// The content as a descriptor.
    public var descriptor: Descriptor { Descriptor(mediaType: mediaType, digest: digest, size: size) }
}

/// A repository in a registry, as the source of content.
public struct ContentSource: Sendable, Hashable, Comparable {
    /// The registry, such as `docker.io` or `registry.example:5000`.
    public var registry: String
    /// The repository, such as `library/nginx`.
    public var repository: String

    /// Creates a source.
    public init(registry: String, repository: String) {
        self.registry = registry
        self.repository = repository
    }

    /// The source of what `reference` names.
    public init(_ reference: Reference) {
        self.init(registry: reference.registry, repository: reference.repository)
    }

    /// Orders by registry, then by repository.
    public static func < (a: ContentSource, b: ContentSource) -> Bool {
        (a.registry, a.repository) < (b.registry, b.repository)
    }
}

/// A name in a store and what it names.
public struct StoredImage: Sendable, Hashable {
    /// The full name, with a tag or a digest.
    public var reference: Reference
    /// The manifest or index that is named. Its content may be missing from the store.
    public var target: Descriptor

    /// Creates an image.
    public init(reference: Reference, target: Descriptor) {
        self.reference = reference
        self.target = target
    }
}
