import OCIDistribution

/// A registry server that is asked for content: a mirror, or the registry itself.
package struct RegistryEndpoint: Sendable, Hashable, CustomStringConvertible {
    /// `http` or `https`.
    package var scheme: String
    /// `host[:port]`, an IPv6 host in brackets.
    package var authority: String
    /// Whether requests say which registry is meant, as a mirror has to know.
    package var sendsNamespace: Bool

    /// An endpoint.
    package init(scheme: String = "http", authority: String, sendsNamespace: Bool = true) {
        self.scheme = scheme
        self.authority = authority
        self.sendsNamespace = sendsNamespace
    }

    /// Scheme and authority.
    package var description: String { "\(scheme)://\(authority)" }

    func url(_ kind: DistributionRequest.Kind, registry: String) -> String {
        "\(self)\(DistributionRequest(kind: kind, registry: sendsNamespace ? registry : nil).uri)"
    }
}
