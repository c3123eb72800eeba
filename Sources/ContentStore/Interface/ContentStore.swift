import OCIDistribution

/// A store of OCI content by digest and of images by name.
///
/// Registry server and advertiser depend on this protocol alone, so all backends keep the same contract:
///
/// - Content is identified by its digest alone; names only lead to digests.
/// - Absence is `nil`, never an error. An error (``ContentStoreError``) means that the backend could not answer; a caller
///   may treat it as absence after logging it.
/// - Content that was opened stays readable after it was removed from the store.
///
/// The asynchronous forms may wait for the backend. The `…Immediately` forms never suspend and never block beyond an
/// `open(2)` and `fstat(2)`, so that a server may call them on an event loop; a backend that cannot promise that
/// answers ``ImmediateAnswer/unknown``, which is also what the default implementations do.
public protocol ContentStore: Sendable {
    /// Finds what a reference names.
    ///
    /// A reference with a digest resolves to that digest when the content is present. A reference with only a tag
    /// resolves to the tag's target, even when the target's content is not (or no longer) present. A name with a digest
    /// (`repository:tag@digest`) does not define the tag.
    ///
    /// - Returns: the target, or `nil` when the name is unknown.
    /// - Throws: ``ContentStoreError`` when the backend cannot answer.
    func resolve(_ reference: Reference) async throws -> Descriptor?

    /// Describes content without opening it.
    ///
    /// - Returns: size, media type and sources, or `nil` when the content is not in the store.
    /// - Throws: ``ContentStoreError`` when the backend cannot answer.
    func info(_ digest: Digest) async throws -> ContentInfo?

    /// Opens content for reading.
    ///
    /// - Returns: the content, or `nil` when it is not in the store.
    /// - Throws: ``ContentStoreError`` when the backend cannot answer or the content cannot be opened.
    func open(_ digest: Digest) async throws -> OpenContent?

    /// Opens content that is being written to the store now, by this process or by another user of the backend.
    ///
    /// - Returns: the content, or `nil` when nobody is writing it, its size is not known, or it is in the store already. By
    ///   default nothing arrives.
    /// - Throws: ``ContentStoreError`` when the backend cannot answer.
    func openArriving(_ digest: Digest) async throws -> ArrivingContent?

    /// Lists the images known by name, sorted by name.
    ///
    /// - Throws: ``ContentStoreError`` when the backend cannot answer.
    func images() async throws -> [StoredImage]

    /// Lists the content that is reachable from an image and really present, parents before children, each once.
    ///
    /// - Throws: ``ContentStoreError`` when the backend cannot answer.
    func contents(of image: StoredImage) async throws -> [ContentInfo]

    /// Subscribes to changes. The subscription starts with a snapshot of the whole store.
    func events() -> ContentEvents

    /// As ``resolve(_:)``, without waiting.
    func resolveImmediately(_ reference: Reference) -> ImmediateAnswer<Descriptor>

    /// As ``info(_:)``, without waiting.
    func infoImmediately(_ digest: Digest) -> ImmediateAnswer<ContentInfo>

    /// As ``open(_:)``, without waiting.
    func openImmediately(_ digest: Digest) -> ImmediateAnswer<OpenContent>
}

extension ContentStore {
    /// The default: nothing arrives.
    public func openArriving(_ digest: Digest) async throws -> ArrivingContent? { nil }

    /// The default: ask ``resolve(_:)``.
    public func resolveImmediately(_ reference: Reference) -> ImmediateAnswer<Descriptor> { .unknown }

    /// The default: ask ``info(_:)``.
    public func infoImmediately(_ digest: Digest) -> ImmediateAnswer<ContentInfo> { .unknown }

    /// The default: ask ``open(_:)``.
    public func openImmediately(_ digest: Digest) -> ImmediateAnswer<OpenContent> { .unknown }
}

/// The answer of a store that does not wait for its backend.
public enum ImmediateAnswer<Value> {
    /// The store has it.
    case found(Value)
    /// The store does not have it.
    case absent
    /// The store would have to wait: use the asynchronous form.
    case unknown

    /// The value, when there is one.
    public var value: Value? {
        if case .found(let value) = self { value } else { nil }
    }
}

extension ImmediateAnswer: Sendable where Value: Sendable {}
extension ImmediateAnswer: Equatable where Value: Equatable {}

/// The description of one piece of content.
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

/// A name in a store and its target.
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
