/// Decides which images are mirrored: requests for an image that is filtered out are answered 404, and it is never
/// advertised.
public struct ReferenceFilter: Sendable {
    /// The registries that are mirrored, in lower case; nil when all are.
    private let registries: Set<String>?
    private let matcher: PatternMatcher?

    /// Allows all images.
    public static let all = ReferenceFilter()

    private init() {
        registries = nil
        matcher = nil
    }

    /// Makes a filter.
    ///
    /// - Parameters:
    ///   - mirroredRegistries: the registries that are mirrored, as URLs (`https://docker.io`) or bare hosts, with
    ///     optional port. Empty means all, and so does any entry that is `*` or `_default`, also as a URL.
    ///   - patterns: regular expressions in RE2 syntax (that of Go) that are searched for anywhere in
    ///     `registry/repository[:tag]`; a match filters the image out. Matching takes time proportional to the name,
    ///     whatever the pattern, as clients choose the names. Classes of Unicode properties (`\pL`) are refused.
    /// - Throws: ``ReferenceFilterError`` naming the first entry that is invalid.
    public init(mirroredRegistries: [String], patterns: [String]) throws(ReferenceFilterError) {
        var hosts: Set<String>? = mirroredRegistries.isEmpty ? nil : []
        for entry in mirroredRegistries {
            // After a wildcard `hosts` stays nil; the following entries are still validated.
            if let host = try ReferenceFilter.host(of: entry) { hosts?.insert(host) } else { hosts = nil }
        }
        registries = hosts
        matcher = try ReferenceFilter.compile(patterns)
    }

    private static func compile(_ patterns: [String]) throws(ReferenceFilterError) -> PatternMatcher? {
        if patterns.isEmpty { return nil }
        var nodes: [PatternNode] = []
        for pattern in patterns {
            do throws(PatternError) {
                let node = try PatternParser.parse(pattern)
                _ = try PatternProgram([node])
                nodes.append(node)
            } catch {
                throw .invalidPattern(pattern: pattern, reason: error.description)
            }
        }
        do throws(PatternError) {
            return try PatternMatcher(nodes)
        } catch {
            // Each is small enough by itself.
            throw .invalidPattern(pattern: patterns.joined(separator: " "), reason: "together: \(error)")
        }
    }

    /// The registries that are mirrored, in order; empty when all are.
    public var registryNames: [String] { registries?.sorted() ?? [] }

    /// Whether all images are allowed.
    public var isUnrestricted: Bool { registries == nil && matcher == nil }

    /// Whether the registry is mirrored, regardless of the patterns.
    public func mirrors(registry: String) -> Bool {
        guard let registries else { return true }
        return registries.contains(registry) || registries.contains(registry.lowercased())
    }

    /// Whether an image is mirrored. Without a tag, patterns are searched in `registry/repository`.
    public func allows(registry: String, repository: String, tag: String?) -> Bool {
        guard mirrors(registry: registry) else { return false }
        guard let matcher else { return true }
        func isFiltered(_ registry: String) -> Bool {
            var parts = [registry[...].utf8, "/"[...].utf8, repository[...].utf8]
            if let tag { parts += [":"[...].utf8, tag[...].utf8] }
            return matcher.matches(parts)
        }
        // Hosts are case-insensitive: writing one differently is no way around a pattern.
        let hasUppercase = registry.utf8.contains(where: \.isUppercase)
        return !isFiltered(registry) && !(hasUppercase && isFiltered(registry.lowercased()))
    }

    /// Whether an image is mirrored.
    public func allows(_ reference: Reference) -> Bool {
        allows(registry: reference.registry, repository: reference.repository, tag: reference.tag)
    }

    /// The lower-case host of an entry, nil for a wildcard.
    private static func host(of entry: String) throws(ReferenceFilterError) -> String? {
        var host = entry[...]
        if let scheme = entry.firstRange(of: "://") {
            guard ["http", "https"].contains(entry[..<scheme.lowerBound].lowercased()) else {
                throw .invalidRegistry(registry: entry, reason: "the scheme must be http or https")
            }
            host = entry[scheme.upperBound...]
            if host.last == "/" { host.removeLast() }
        }
        if host == "*" || host == "_default" { return nil }
        if host.contains(where: { $0 == "/" || $0 == "?" || $0 == "#" || $0 == "@" }) {
            throw .invalidRegistry(
                registry: entry, reason: "only a host and a port are allowed, no path, query or user")
        }
        if let reason = withUTF8(of: host, RegistryHost.validationError) {
            throw .invalidRegistry(registry: entry, reason: "\(reason)")
        }
        return host.lowercased()
    }
}

/// Which entry of a filter's configuration is invalid.
public enum ReferenceFilterError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The pattern is not a regular expression.
    case invalidPattern(pattern: String, reason: String)
    /// The registry is not `http(s)://host[:port]`, a host, or a wildcard.
    case invalidRegistry(registry: String, reason: String)

    /// A sentence naming the entry and what is wrong with it.
    public var description: String {
        switch self {
        case .invalidPattern(let pattern, let reason): "invalid registry filter \(sanitizedExcerpt(pattern)): \(reason)"
        case .invalidRegistry(let registry, let reason):
            "invalid mirrored registry \(sanitizedExcerpt(registry)): \(reason)"
        }
    }
}
