/// The name of an image: `registry/repository[:tag][@digest]`.
public struct Reference: Hashable, Sendable {
    /// Host and optional port of the registry, as in `docker.io` or `[2001:db8::1]:5000`.
    public let registry: String
    /// The repository in the registry, as in `library/nginx`.
    public let repository: String
    /// The tag, if any.
    public let tag: String?
    /// The digest, if any. It decides when there is a tag as well.
    public let digest: Digest?

    /// The registry that Docker's short names belong to.
    public static let dockerRegistry = "docker.io"

    init(uncheckedRegistry registry: String, repository: String, tag: String?, digest: Digest?) {
        self.registry = registry
        self.repository = repository
        self.tag = tag
        self.digest = digest
    }

    /// Makes a reference of its parts.
    ///
    /// - Throws: ``ReferenceError`` when a part breaks its grammar, or registry and repository together are longer than
    ///   255 bytes.
    public init(
        registry: String, repository: String, tag: String? = nil, digest: Digest? = nil
    ) throws(ReferenceError) {
        self.init(uncheckedRegistry: registry, repository: repository, tag: tag, digest: digest)
        try validate(input: description)
    }

    /// `registry/repository`.
    public var name: String { "\(registry)/\(repository)" }

    /// `registry/repository:tag`, the key under which a tag is looked up; nil without a tag.
    public var taggedName: String? { tag.map { "\(registry)/\(repository):\($0)" } }

    /// This reference with the tag `latest` if it has neither tag nor digest.
    public var withDefaultTag: Reference {
        guard tag == nil, digest == nil else { return self }
        return Reference(uncheckedRegistry: registry, repository: repository, tag: "latest", digest: nil)
    }

    private func validate(input: String) throws(ReferenceError) {
        if let reason = withUTF8(of: registry, RegistryHost.validationError) {
            throw .invalidRegistry(input: sanitizedExcerpt(input), reason: "\(reason)")
        }
        if let reason = withUTF8(of: repository, NameGrammar.repositoryError) {
            throw .invalidRepository(input: sanitizedExcerpt(input), reason: "\(reason)")
        }
        guard registry.utf8.count + 1 + repository.utf8.count <= NameGrammar.maximumNameLength else {
            throw .invalidRepository(
                input: sanitizedExcerpt(input), reason: "registry and repository together are longer than 255 bytes")
        }
        if let tag, let reason = withUTF8(of: tag, NameGrammar.tagError) {
            throw .invalidTag(input: sanitizedExcerpt(input), reason: "\(reason)")
        }
    }
}

extension Reference: LosslessStringConvertible {
    /// `registry/repository[:tag][@digest]`.
    public var description: String {
        var text = name
        if let tag { text += ":\(tag)" }
        if let digest { text += "@\(digest)" }
        return text
    }

    /// Parses a full reference; nil for whatever ``init(parsing:)`` would throw on.
    public init?(_ description: String) {
        do throws(ReferenceError) { try self.init(parsing: description) } catch { return nil }
    }
}

extension Reference {
    /// Parses a full reference, whose first component must be a registry: it has a dot or a colon, or is `localhost`.
    ///
    /// - Throws: ``ReferenceError``.
    public init(parsing text: some StringProtocol) throws(ReferenceError) {
        try self.init(parsing: text, dockerDefaults: false)
    }

    /// Parses a reference as Docker does: without a registry `docker.io` is meant, in which a repository of one
    /// component belongs to `library/`; `index.docker.io` is `docker.io`. The tag stays absent if it is, see
    /// ``withDefaultTag``.
    ///
    /// - Throws: ``ReferenceError``.
    public init(parsingWithDockerDefaults text: some StringProtocol) throws(ReferenceError) {
        try self.init(parsing: text, dockerDefaults: true)
    }

    private init(parsing text: some StringProtocol, dockerDefaults: Bool) throws(ReferenceError) {
        self = try withUTF8(of: text) { (bytes) throws(ReferenceError) in
            try Reference(bytes, dockerDefaults: dockerDefaults)
        }
    }

    private init(_ bytes: UnsafeBufferPointer<UInt8>, dockerDefaults: Bool) throws(ReferenceError) {
        // Name, tag and a SHA-512 digest with their separators.
        let longest = NameGrammar.maximumNameLength + NameGrammar.maximumTagLength + 137
        guard !bytes.isEmpty, bytes.count <= longest else {
            throw .invalidLength(input: sanitizedExcerpt(bytes), count: bytes.count)
        }
        let nameEnd = bytes.firstIndex(of: 0x40) ?? bytes.count
        var digest: Digest?
        if nameEnd < bytes.count {
            do throws(DigestError) {
                digest = try Digest(parsingUTF8: UnsafeBufferPointer(rebasing: bytes[(nameEnd + 1)...]))
            } catch {
                throw .invalidDigest(input: sanitizedExcerpt(bytes), reason: error)
            }
        }
        // A colon after the last slash begins the tag; one before belongs to the registry.
        let lastSlash = bytes[..<nameEnd].lastIndex(of: 0x2F)
        let colon = bytes[(lastSlash ?? 0)..<nameEnd].firstIndex(of: 0x3A)
        let tag = colon.map { String(decoding: bytes[($0 + 1)..<nameEnd], as: UTF8.self) }
        let name = bytes[..<(colon ?? nameEnd)]

        var registry: String
        var repository: String
        let slash = name.firstIndex(of: 0x2F)
        if let slash, RegistryHost.isRegistry(UnsafeBufferPointer(rebasing: name[..<slash])) {
            registry = String(decoding: name[..<slash], as: UTF8.self)
            repository = String(decoding: name[(slash + 1)...], as: UTF8.self)
        } else {
            guard dockerDefaults else { throw .missingRegistry(input: sanitizedExcerpt(bytes)) }
            registry = Reference.dockerRegistry
            repository = String(decoding: name, as: UTF8.self)
            // Docker takes 64 hexadecimal digits for an image ID.
            if name.count == 64, name.allSatisfy({ hexValue($0) != nil && !$0.isUppercase }) {
                throw .invalidRepository(
                    input: sanitizedExcerpt(bytes), reason: "64 hexadecimal digits are an image ID, not a name")
            }
        }
        if dockerDefaults {
            if registry == "index.docker.io" { registry = Reference.dockerRegistry }
            if registry == Reference.dockerRegistry, !repository.isEmpty, !repository.utf8.contains(0x2F) {
                repository = "library/\(repository)"
            }
        }
        self.init(uncheckedRegistry: registry, repository: repository, tag: tag, digest: digest)
        try validate(input: String(decoding: bytes, as: UTF8.self))
    }
}

/// Why a string is not a reference to an image.
public enum ReferenceError: Error, Sendable, Hashable, CustomStringConvertible {
    /// Nothing, or longer than any reference can be.
    case invalidLength(input: String, count: Int)
    /// The first component is not a registry, and no default was allowed.
    case missingRegistry(input: String)
    /// The registry is not a host with an optional port.
    case invalidRegistry(input: String, reason: String)
    /// The repository breaks the grammar of names.
    case invalidRepository(input: String, reason: String)
    /// The tag breaks the grammar of tags.
    case invalidTag(input: String, reason: String)
    /// What follows the `@` is not a digest.
    case invalidDigest(input: String, reason: DigestError)

    /// A sentence naming the input and what is wrong with it.
    public var description: String {
        switch self {
        case .invalidLength(let input, let count):
            count == 0 ? "invalid reference: it is empty" : "invalid reference \(input): \(count) bytes are too long"
        case .missingRegistry(let input):
            "invalid reference \(input): it must begin with a registry, such as docker.io/library/nginx"
        case .invalidRegistry(let input, let reason), .invalidRepository(let input, let reason),
            .invalidTag(let input, let reason):
            "invalid reference \(input): \(reason)"
        case .invalidDigest(let input, let reason): "invalid reference \(input): \(reason)"
        }
    }
}
