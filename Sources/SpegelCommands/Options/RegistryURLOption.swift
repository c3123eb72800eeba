import NodeConfiguration

extension RegistryURL {
    /// The transform of an option that names a registry or all of them.
    @Sendable static func parse(_ text: String) throws -> RegistryURL {
        do { return try RegistryURL(parsing: text) } catch { throw OptionError(error.expectation) }
    }

    /// The transform of an option that names a mirror.
    @Sendable static func parseMirrorTarget(_ text: String) throws -> RegistryURL {
        do { return try RegistryURL(parsingMirrorTarget: text) } catch { throw OptionError(error.expectation) }
    }
}

extension RegistryURLError {
    /// What is allowed, as it stands after "expected".
    fileprivate var expectation: String { String(description.dropFirst("expected ".count)) }
}
