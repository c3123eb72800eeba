/// A registry as containerd's configuration names it: `http(s)://host[:port]`, or the wildcard for all of them.
enum RegistryURL: Equatable, Sendable, CustomStringConvertible {
    /// Every registry: `_default` or `*`.
    case wildcard
    /// One registry. `host` has brackets around an IPv6 address and the port when one was given.
    case registry(scheme: String, host: String)

    var description: String {
        switch self {
        case .wildcard: "_default"
        case .registry(let scheme, let host): "\(scheme)://\(host)"
        }
    }

    /// The host, with port, or the wildcard's name.
    var host: String {
        switch self {
        case .wildcard: "_default"
        case .registry(_, let host): host
        }
    }

    /// Reads a registry.
    ///
    /// - Throws: ``OptionError`` with what is allowed.
    init(parsing text: String) throws {
        let allowed = OptionError("http://HOST[:PORT] or https://HOST[:PORT] without path, query or user, or _default")
        if text == "_default" || text == "*" {
            self = .wildcard
            return
        }
        let lowered = text.lowercased()
        guard let scheme = ["http", "https"].first(where: { lowered.hasPrefix($0 + "://") }) else { throw allowed }
        let authority = lowered.dropFirst(scheme.count + 3)
        guard let host = Self.validAuthority(authority) else { throw allowed }
        self = .registry(scheme: scheme, host: host)
    }

    /// The transform of an option.
    @Sendable static func parse(_ text: String) throws -> RegistryURL {
        try RegistryURL(parsing: text)
    }

    /// `host[:port]` when it is well formed, else nil.
    private static func validAuthority(_ text: Substring) -> String? {
        var host = text
        var afterHost: Substring = ""
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { return nil }
            host = text[text.index(after: text.startIndex)..<end]
            afterHost = text[text.index(after: end)...]
            guard host.contains(":"), host.allSatisfy({ $0.isHexDigit || $0 == ":" || $0 == "." }) else { return nil }
        } else if let colon = text.firstIndex(of: ":") {
            host = text[..<colon]
            afterHost = text[colon...]
        }
        if !text.hasPrefix("[") {
            let labels = host.split(separator: ".", omittingEmptySubsequences: false)
            let allowed = labels.allSatisfy { label in
                !label.isEmpty && label.utf8.count <= 63 && !label.hasPrefix("-") && !label.hasSuffix("-")
                    && label.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_") }
            }
            guard allowed, host.utf8.count <= 253 else { return nil }
        }
        guard !afterHost.isEmpty else { return String(text) }
        let digits = afterHost.dropFirst()
        guard afterHost.first == ":", digits.allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(digits),
            port > 0
        else { return nil }
        return String(text)
    }
}
