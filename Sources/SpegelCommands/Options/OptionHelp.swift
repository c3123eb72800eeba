/// Adds to a help page each option's default and environment variable, which the parser does not know.
enum OptionHelp {
    /// The column in which descriptions begin.
    private static let column = 26

    /// - Parameters:
    ///   - page: The parser's help page.
    ///   - command: The subcommand that it is of; nil for the program itself.
    static func annotate(_ page: String, command: String?, catalogue: OptionCatalogue = .spegel) -> String {
        let known = (command.flatMap { catalogue.commands[$0] } ?? [:]).merging(catalogue.global) { option, _ in option
        }
        let defaults = (command.flatMap { OptionCatalogue.defaults[$0] } ?? [:]).merging(OptionCatalogue.globalDefaults)
        {
            option, _ in option
        }
        var result: [Substring] = []
        var pending: String?
        func flush() {
            guard let name = pending else { return }
            pending = nil
            let variable =
                OptionCatalogue.withoutVariable.contains(name)
                ? nil : "Variable: \(ArgumentNormalizer.variable(for: name))"
            let text = [defaults[name].map { "Default: \($0)." }, variable].compactMap(\.self).joined(separator: " ")
            guard !text.isEmpty else { return }
            result.append(Substring(String(repeating: " ", count: column) + text))
        }
        for line in page.split(separator: "\n", omittingEmptySubsequences: false) {
            if !line.hasPrefix(String(repeating: " ", count: column)) { flush() }
            result.append(line)
            if line.hasPrefix("  --") {
                let name = String(line.dropFirst(4).prefix { $0 != " " && $0 != "/" && $0 != "=" })
                if known[name] != nil { pending = name }
            }
        }
        flush()
        return result.joined(separator: "\n")
    }
}

extension OptionCatalogue {
    /// Defaults of options of all subcommands.
    static let globalDefaults = ["log-level": "INFO", "log-format": "json"]

    private static let containerd = [
        "containerd-sock": "/run/containerd/containerd.sock", "containerd-namespace": "k8s.io",
        "containerd-content-path": ContainerdOptions.defaultContentPath,
    ]
    private static let certificates = ["containerd-registry-config-path": "/etc/containerd/certs.d"]

    /// Defaults of each subcommand's options, as they would be given; options without one are not listed. Tests compare
    /// them with what the commands do without the option.
    static let defaults: [String: [String: String]] = [
        "registry": [
            "store": "containerd", "registry-addr": ":5000", "metrics-addr": ":9090", "router-addr": ":5001",
            "mirror-resolve-timeout": "20ms", "mirror-resolve-retries": "3", "resolve-tags": "true",
            "cold-start": "on", "cold-start-copies": "1", "cold-start-fanout": "4", "cold-start-wait": "10s",
            "debug-web-enabled": "true",
            "shutdown-grace-period": "25s",
        ].merging(containerd) { $1 },
        "configuration": ["resolve-tags": "true", "prepend-existing": "false"].merging(certificates) { $1 },
        "cleanup": certificates,
        "cleanup-wait": ["threshold": "3", "period": "2s"],
        "containerd-prep": [
            "containerd-config-file": "/etc/containerd/config.toml",
            "containerd-sock": "/run/containerd/containerd.sock",
            "containerd-binary": "containerd", "restart-systemd": "false", "restart-timeout": "60s", "dry-run": "false",
        ].merging(certificates) { $1 },
        "doctor": [
            "store": "containerd", "containerd-config-file": "/etc/containerd/config.toml", "registry-addr": ":5000",
            "metrics-addr": ":9090", "router-addr": ":5001", "format": "text", "watch": "false",
        ].merging(containerd) { $1 }.merging(certificates) { $1 },
        "dht": ["router-addr": ":5001", "metrics-addr": ":9090", "dht-timeout": "10s", "format": "text"],
        "version": ["format": "text"],
        "pull": ["mirror": "http://127.0.0.1:5000", "all-platforms": "false"],
        "status": ["metrics-addr": ":9090", "json": "false"],
        "top": ["metrics-addr": ":9090", "interval": "2s"],
    ]
}
