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

    /// How requests are parsed.
    public struct Options: Sendable, Hashable {
        /// The registry of requests that name none; nil for none.
        public var defaultRegistry: String?

        /// Makes options.
        public init(defaultRegistry: String? = nil) { self.defaultRegistry = defaultRegistry }
    }

    /// What is read.
    public var kind: Kind

    /// The registry the name belongs to; nil for ``Kind/base``, and for a digest without a registry.
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

/// How a manifest is named in a request: by tag or by digest.
public enum ManifestReference: Sendable, Hashable, CustomStringConvertible {
    /// A name that may move.
    case tag(String)
    /// The content itself.
    case digest(Digest)

    /// Tag or digest as it stands in a path.
    public var description: String {
        switch self {
        case .tag(let tag): tag
        case .digest(let digest): digest.description
        }
    }
}

extension DistributionRequest {
    /// Longer targets are refused. The longest sensible one, with everything percent-encoded, is under 2 KiB.
    public static let maximumURILength = 8192

    /// Parses the target of an HTTP request, in origin form (`/v2/…`) or absolute form (`http://host/v2/…`).
    ///
    /// The registry is the `ns` query if there is one; else the first component of the name if it can only be a host
    /// (it has a dot or a colon, or is `localhost`) and more follows; else the default of `options`. A first component that
    /// is the registry of `ns` again, as clients with a path in their mirror's URL send it, is left out. Hosts are brought
    /// into one spelling: lower case, without `:443`, `docker.io` for Docker Hub's other names. An empty `ns` counts
    /// as absent, a repeated one is an error, other query items are ignored. For ``Kind/base`` the query is ignored.
    ///
    /// - Throws: ``DistributionError`` with the status to answer with: 404 for paths that are not of this API, 414 for a
    ///   target over ``maximumURILength``, else 400 with `NAME_INVALID`, `TAG_INVALID` or `DIGEST_INVALID`.
    public init(parsing uri: String, options: Options = Options()) throws(DistributionError) {
        self = try withUTF8(of: uri) { (bytes) throws(DistributionError) in
            try DistributionRequest(parsingUTF8: bytes, options: options)
        }
    }

    /// Parses the UTF-8 of the target of an HTTP request; see ``init(parsing:options:)``.
    public init(
        parsingUTF8 target: UnsafeBufferPointer<UInt8>, options: Options = Options()
    ) throws(DistributionError) {
        guard target.count <= Self.maximumURILength else {
            throw DistributionError(
                .nameInvalid, message: "the request target is longer than \(Self.maximumURILength) bytes",
                httpStatus: 414)
        }
        let question = target.firstIndex(of: 0x3F)
        let path = Self.originForm(UnsafeBufferPointer(rebasing: target[..<(question ?? target.count)]))
        let query = question.map { UnsafeBufferPointer(rebasing: target[($0 + 1)...]) }
        if !path.contains(0x25) {
            try self.init(path: path, query: query, options: options)
            return
        }
        let result: Result<DistributionRequest, DistributionError> = PercentEncoding.withDecoded(path) { decoded in
            do throws(DistributionError) {
                guard let decoded else {
                    throw DistributionError(
                        .nameInvalid, message: "malformed percent-encoding in \(sanitizedExcerpt(path))")
                }
                // An encoded slash is data, not a separator, and no part may hold one.
                guard decoded.count(where: { $0 == 0x2F }) == path.count(where: { $0 == 0x2F }) else {
                    throw DistributionError(.nameInvalid, message: "encoded slash in \(sanitizedExcerpt(path))")
                }
                return .success(try DistributionRequest(path: decoded, query: query, options: options))
            } catch {
                return .failure(error)
            }
        }
        self = try result.get()
    }

    /// The path of a target in absolute form; any other target as it is.
    private static func originForm(_ target: UnsafeBufferPointer<UInt8>) -> UnsafeBufferPointer<UInt8> {
        if target.first == 0x2F { return target }
        for scheme: StaticString in ["http://", "https://"] {
            let prefix = UnsafeBufferPointer(start: scheme.utf8Start, count: scheme.utf8CodeUnitCount)
            // Schemes are case-insensitive.
            guard target.count > prefix.count, zip(target, prefix).allSatisfy({ $0 == $1 || $0 | 0x20 == $1 }) else {
                continue
            }
            guard let slash = target[prefix.count...].firstIndex(of: 0x2F) else { break }
            return UnsafeBufferPointer(rebasing: target[slash...])
        }
        return target
    }

    /// Parses a decoded path and a query that is still encoded.
    private init(
        path: UnsafeBufferPointer<UInt8>, query: UnsafeBufferPointer<UInt8>?, options: Options
    ) throws(DistributionError) {
        // "/v2", then the end or a slash.
        guard path.count >= 3, path[0] == 0x2F, path[1] == 0x76, path[2] == 0x32 else { throw Self.notFound(path) }
        if path.count == 3 || path.count == 4 && path[3] == 0x2F {
            self.init(kind: .base, registry: nil)
            return
        }
        // The reference has no slash, so that the last two slashes are the ones around the kind, whatever the name.
        guard path[3] == 0x2F, let end = path.lastIndex(of: 0x2F), end + 1 < path.count,
            let start = path[..<end].lastIndex(of: 0x2F), start > 3
        else { throw Self.notFound(path) }
        let name = UnsafeBufferPointer(rebasing: path[4..<start])
        if path[(start + 1)...].elementsEqual("tags/list".utf8) {
            let (registry, repository) = try Self.resolve(name, query: query, options: options)
            guard registry != nil else {
                throw DistributionError(
                    .nameInvalid, message: "ns is required for tags: no registry is given for \(sanitizedExcerpt(path))"
                )
            }
            self.init(kind: .tags(repository: repository, try TagPage(query)), registry: registry)
            return
        }
        let reference = UnsafeBufferPointer(rebasing: path[(end + 1)...])
        let isManifest = path[(start + 1)..<end].elementsEqual("manifests".utf8)
        guard isManifest || path[(start + 1)..<end].elementsEqual("blobs".utf8) else { throw Self.notFound(path) }

        let (registry, repository) = try Self.resolve(name, query: query, options: options)
        if isManifest, !reference.contains(0x3A) {
            if let reason = NameGrammar.tagError(reference) {
                throw DistributionError(.tagInvalid, message: "invalid tag \(sanitizedExcerpt(reference)): \(reason)")
            }
            guard registry != nil else {
                throw DistributionError(
                    .nameInvalid, message: "ns is required for tags: no registry is given for \(sanitizedExcerpt(path))"
                )
            }
            let tag = String(decoding: reference, as: UTF8.self)
            self.init(kind: .manifest(repository: repository, .tag(tag)), registry: registry)
            return
        }
        let digest: Digest
        do throws(DigestError) {
            digest = try Digest(parsingUTF8: reference)
        } catch {
            throw DistributionError(.digestInvalid, message: error.description)
        }
        self.init(
            kind: isManifest
                ? .manifest(repository: repository, .digest(digest)) : .blob(repository: repository, digest),
            registry: registry)
    }

    /// Finds out which registry a name belongs to, and what the repository is.
    private static func resolve(
        _ name: UnsafeBufferPointer<UInt8>, query: UnsafeBufferPointer<UInt8>?, options: Options
    ) throws(DistributionError) -> (registry: String?, repository: String) {
        var registry = try query.flatMap { (query) throws(DistributionError) in try namespace(in: query) }
        var repository = name
        registry = registry.map(RegistryHost.canonical)
        if let slash = name.firstIndex(of: 0x2F) {
            let first = UnsafeBufferPointer(rebasing: name[..<slash])
            if let given = registry {
                if RegistryHost.isRegistry(first),
                    RegistryHost.canonical(String(decoding: first, as: UTF8.self)) == given
                {
                    repository = UnsafeBufferPointer(rebasing: name[(slash + 1)...])
                }
            } else if RegistryHost.isRegistry(first) {
                if let reason = RegistryHost.validationError(first) {
                    throw DistributionError(.nameInvalid, message: "invalid name \(sanitizedExcerpt(name)): \(reason)")
                }
                registry = RegistryHost.canonical(String(decoding: first, as: UTF8.self))
                repository = UnsafeBufferPointer(rebasing: name[(slash + 1)...])
            }
        }
        if let reason = NameGrammar.repositoryError(repository) {
            throw DistributionError(.nameInvalid, message: "invalid name \(sanitizedExcerpt(name)): \(reason)")
        }
        registry = registry ?? options.defaultRegistry
        if let registry, registry.utf8.count + 1 + repository.count > NameGrammar.maximumNameLength {
            throw DistributionError(
                .nameInvalid,
                message:
                    "invalid name \(sanitizedExcerpt(name)): registry and repository together are longer than 255 bytes"
            )
        }
        return (registry, String(decoding: repository, as: UTF8.self))
    }

    /// The `ns` item of a query; nil when it is absent or empty.
    private static func namespace(in query: UnsafeBufferPointer<UInt8>) throws(DistributionError) -> String? {
        var found: String?
        var index = 0
        while index < query.count {
            let end = query[index...].firstIndex(of: 0x26) ?? query.count
            let item = query[index..<end]
            index = end + 1
            let equals = item.firstIndex(of: 0x3D) ?? item.endIndex
            let key = UnsafeBufferPointer(rebasing: item[..<equals])
            guard PercentEncoding.withDecoded(key, { $0?.elementsEqual("ns".utf8) ?? false }) else { continue }
            guard equals + 1 < item.endIndex else { continue }
            let value = UnsafeBufferPointer(rebasing: item[(equals + 1)...])
            // Two readers could pick different ones, so that a repeated item is no way past a check.
            if found != nil { throw DistributionError(.nameInvalid, message: "ns is given more than once") }
            let (host, reason) = PercentEncoding.withDecoded(value) { decoded -> (String?, StaticString?) in
                guard let decoded else { return (nil, "malformed percent-encoding") }
                if let reason = RegistryHost.validationError(decoded) { return (nil, reason) }
                return (String(decoding: decoded, as: UTF8.self), nil)
            }
            if let reason {
                throw DistributionError(.nameInvalid, message: "invalid ns \(sanitizedExcerpt(value)): \(reason)")
            }
            found = host
        }
        return found
    }

    private static func notFound(_ path: UnsafeBufferPointer<UInt8>) -> DistributionError {
        DistributionError(.unsupported, message: "no such endpoint: \(sanitizedExcerpt(path))", httpStatus: 404)
    }
}

/// Which part of a list of tags is asked for (OCI distribution specification, "Listing Tags").
public struct TagPage: Sendable, Hashable {
    /// The most tags in one answer.
    public static let limit = 1000

    /// Most tags in the answer; at most ``limit``.
    public var count: Int
    /// The last tag of the page before; nil for the first page.
    public var last: String?

    /// A page.
    public init(count: Int = TagPage.limit, last: String? = nil) {
        self.count = min(max(0, count), Self.limit)
        self.last = last
    }

    /// Reads `n` and `last` of a query that is still encoded.
    fileprivate init(_ query: UnsafeBufferPointer<UInt8>?) throws(DistributionError) {
        self.init()
        for item in query?.split(separator: 0x26) ?? [] {
            guard let equals = item.firstIndex(of: 0x3D) else { continue }
            let value = UnsafeBufferPointer(rebasing: item[(equals + 1)...])
            switch item[..<equals] {
            case let key where key.elementsEqual("n".utf8):
                guard let number = Int(String(decoding: value, as: UTF8.self)), number >= 0 else {
                    throw DistributionError(.nameInvalid, message: "n must be a number, not \(sanitizedExcerpt(value))")
                }
                count = min(number, Self.limit)
            case let key where key.elementsEqual("last".utf8):
                last = PercentEncoding.withDecoded(value) { $0.map { String(decoding: $0, as: UTF8.self) } }
            default: break
            }
        }
    }
}
