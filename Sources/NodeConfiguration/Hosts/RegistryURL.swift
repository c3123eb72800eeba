import Foundation
import OCIDistribution

/// Why a registry's address is no good: what is allowed instead.
package struct RegistryURLError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What is allowed, to stand after the value.
    package var description: String {
        "expected http://HOST[:PORT] or https://HOST[:PORT] without path, query or user, or _default"
    }
}

/// A registry as containerd's configuration names it: `http(s)://host[:port]`, or the wildcard for all of them.
package enum RegistryURL: Hashable, Sendable, CustomStringConvertible {
    /// Every registry: `_default` or `*`.
    case wildcard
    /// One registry. `host` has brackets around an IPv6 address and the port when one was given.
    case registry(scheme: String, host: String)

    package var description: String {
        switch self {
        case .wildcard: "_default"
        case .registry(let scheme, let host): "\(scheme)://\(host)"
        }
    }

    /// The host, with port, or the wildcard's name.
    package var host: String {
        switch self {
        case .wildcard: "_default"
        case .registry(_, let host): host
        }
    }

    /// Reads a registry.
    ///
    /// - Throws: ``RegistryURLError``.
    package init(parsing text: String) throws(RegistryURLError) {
        let allowed = RegistryURLError()
        if text == "_default" || text == "*" {
            self = .wildcard
            return
        }
        let lowered = text.lowercased()
        guard let scheme = ["http", "https"].first(where: { lowered.hasPrefix($0 + "://") }) else { throw allowed }
        let authority = lowered.dropFirst(scheme.count + 3)
        guard RegistryHost.validationError(in: authority) == nil else { throw allowed }
        self = .registry(scheme: scheme, host: String(authority))
    }

    /// Reads a mirror's address, in which an IPv6 address with a port may lack its brackets, as manifests that join a node's
    /// address and a port write it: `http://fd00::1:30020` is `http://[fd00::1]:30020`.
    ///
    /// - Throws: ``RegistryURLError``, also for the wildcard.
    package init(parsingMirrorTarget text: String) throws(RegistryURLError) {
        var text = text
        if let scheme = text.firstRange(of: "://") {
            let authority = text[scheme.upperBound...]
            if !authority.contains("["), !authority.contains("/"), authority.count(where: { $0 == ":" }) >= 2,
                let colon = authority.lastIndex(of: ":")
            {
                text = "\(text[..<scheme.upperBound])[\(authority[..<colon])]\(authority[colon...])"
            }
        }
        try self.init(parsing: text)
        if self == .wildcard { throw RegistryURLError() }
    }
}
