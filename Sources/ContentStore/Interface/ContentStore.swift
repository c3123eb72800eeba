import OCIDistribution

/// A place that holds OCI content by digest and knows images by name.
///
/// The store is the only thing a registry server or an advertiser sees of a backend, so every backend answers alike:
///
/// - Content is identified by its digest alone; names only lead to digests.
/// - Absence is `nil`, never an error. An error means that the store could not find out
///   (``ContentStoreError``), and a caller may treat it as absence after logging it.
/// - What is served was true when it was opened: a file stays readable after it was deleted from the store.
///
/// The asynchronous forms may wait for the backend. The `…Immediately` forms never suspend and never block beyond an
/// `open(2)` and `fstat(2)`, so that a server may call them on an event loop; a backend that cannot promise that
/// answers ``ImmediateAnswer/unknown``, which is also what the default implementations do.
public protocol ContentStore: Sendable {
    /// Finds what a reference names.
    ///
    /// A reference with a digest resolves to that digest when the content is present. A reference with only a tag
    /// resolves to the tag's target, even when the target's content is not (or no longer) present. A name with a digest
    /// (`repository:tag@digest`) says nothing about where the tag leads.
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

    /// Lists the images known by name, sorted by name.
    ///
    /// - Throws: ``ContentStoreError`` when the backend cannot answer.
    func images() async throws -> [StoredImage]

    /// Lists the content that is reachable from an image and really present, parents before children, each once.
    ///
    /// - Throws: ``ContentStoreError`` when the backend cannot answer.
    func contents(of image: StoredImage) async throws -> [ContentInfo]

    /// Subscribes to changes. The subscription starts with a snapshot of all there is.
    func events() -> ContentEvents

    /// As ``resolve(_:)``, without waiting.
    func resolveImmediately(_ reference: Reference) -> ImmediateAnswer<Descriptor>

    /// As ``info(_:)``, without waiting.
    func infoImmediately(_ digest: Digest) -> ImmediateAnswer<ContentInfo>

    /// As ``open(_:)``, without waiting.
    func openImmediately(_ digest: Digest) -> ImmediateAnswer<OpenContent>
}

extension ContentStore {
    /// The default: ask ``resolve(_:)``.
    public func resolveImmediately(_ reference: Reference) -> ImmediateAnswer<Descriptor> { .unknown }

    /// The default: ask ``info(_:)``.
    public func infoImmediately(_ digest: Digest) -> ImmediateAnswer<ContentInfo> { .unknown }

    /// The default: ask ``open(_:)``.
    public func openImmediately(_ digest: Digest) -> ImmediateAnswer<OpenContent> { .unknown }
}
