/// A read of a registry (OCI distribution specification, "Pull"), as it stands in the target of an HTTP request:
/// `/v2/<name>/manifests/<tag or digest>`, `/v2/<name>/blobs/<digest>` or `/v2/<name>/tags/list`, with `?ns=<registry>` as containerd sends it to
/// mirrors.
public struct DistributionRequest: Sendable, Hashable {
    /// What is read.
    public enum Kind: Sendable, Hashable {
        /// `/v2/`: whether this is a registry at all.
        case base
        /// A manifest or index.
        case manifest(repository: String, ManifestReference)
        /// A layer, a config or any other content.
        case blob(repository: String, Digest)
        /// The tags of a repository.
        case tags(repository: String, TagPage)
    }

    /// How requests are understood.
    public struct Options: Sendable, Hashable {
        /// The registry that is meant when a request does not say; nil when there is none.
        public var defaultRegistry: String?

        /// Makes options.
        public init(defaultRegistry: String? = nil) { self.defaultRegistry = defaultRegistry }
    }

    /// What is read.
    public var kind: Kind

    /// The registry the name belongs to; nil for ``Kind/base``, and for a digest when nothing says which.
    public var registry: String?

    /// Makes a request. The parts are taken as they are: parse a ``Reference`` first where they come from outside.
    public init(kind: Kind, registry: String?) {
        self.kind = kind
        self.registry = registry
    }

    /// The repository; nil for ``Kind/base``.
    public var repository: String? {
        switch kind {
        case .base: nil
        case .manifest(let repository, _), .blob(let repository, _), .tags(let repository, _): repository
        }
    }

    /// The tag, if that is what is asked for.
    public var tag: String? {
        if case .manifest(_, .tag(let tag)) = kind { tag } else { nil }
    }

    /// The digest, if that is what is asked for.
    public var digest: Digest? {
        switch kind {
        case .manifest(_, .digest(let digest)), .blob(_, let digest): digest
        default: nil
        }
    }

    /// The image reference that is asked for; nil without a registry.
    public var reference: Reference? {
        guard let registry, let repository else { return nil }
        return Reference(uncheckedRegistry: registry, repository: repository, tag: tag, digest: digest)
    }

    /// The key by which peers look the content up: the digest, or `registry/repository:tag`.
    public var lookupKey: String? { digest?.description ?? reference?.taggedName }

    /// The target of the HTTP request: path and, where there is a registry, the `ns` query; without the page of a list of
    /// tags.
    ///
    /// Whatever the parts hold, the target is a single token of printable ASCII.
    public var uri: String {
        var bytes: [UInt8] = Array("/v2/".utf8)
        switch kind {
        case .base: break
        case .manifest(let repository, let reference):
            PercentEncoding.append(repository, allowing: "/", to: &bytes)
            bytes += "/manifests/".utf8
            PercentEncoding.append(reference.description, allowing: ":", to: &bytes)
        case .blob(let repository, let digest):
            PercentEncoding.append(repository, allowing: "/", to: &bytes)
            bytes += "/blobs/".utf8
            bytes += digest.description.utf8
        case .tags(let repository, _):
            PercentEncoding.append(repository, allowing: "/", to: &bytes)
            bytes += "/tags/list".utf8
        }
        if let registry {
            bytes += "?ns=".utf8
            PercentEncoding.append(registry, allowing: "", to: &bytes)
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
