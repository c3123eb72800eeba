/// How an option takes its values on the command line and from its environment variable.
enum OptionKind: Sendable {
    /// `--name VALUE` or `--name=VALUE`.
    case value
    /// Several values after one flag, repeated flags, or a comma-separated variable.
    case list
    /// `--name`, `--name=true` or `--name=false`.
    case boolean
}

/// The long options of every subcommand, as the argument normalizer has to know them.
///
/// The parser's own declarations cannot be asked for the difference between the kinds, so it is written down here;
/// a test compares both, so that they cannot drift apart.
struct OptionCatalogue: Sendable {
    /// Options that stand before or after the subcommand.
    var global: [String: OptionKind]
    /// Options of each subcommand.
    var commands: [String: [String: OptionKind]]

    /// Options that no environment variable gives: `USERNAME` is the user's own in many shells, and a password on standard input
    /// is there for one command.
    static let withoutVariable: Set<String> = ["username", "password-stdin"]

    /// What `spegel` offers.
    static let spegel = OptionCatalogue(
        global: ["log-level": .value, "log-format": .value],
        commands: [
            "registry": [
                "store": .value,
                "registry-addr": .value,
                "metrics-addr": .value,
                "router-addr": .value,
                "default-registry": .value,
                "bootstrap-kind": .value,
                "dns-bootstrap-domain": .value,
                "http-bootstrap-addr": .value,
                "http-bootstrap-url": .value,
                "http-bootstrap-cert-dir": .value,
                "static-bootstrap-peers": .list,
                "containerd-sock": .value,
                "containerd-namespace": .value,
                "containerd-content-path": .value,
                "data-dir": .value,
                "mirrored-registries": .list,
                "registry-filters": .list,
                "mirror-resolve-timeout": .value,
                "mirror-resolve-retries": .value,
                "peer-networks": .list,
                "resolve-tags": .boolean,
                "cold-start": .value,
                "cold-start-copies": .value,
                "cold-start-fanout": .value,
                "cold-start-wait": .value,
                "debug-web-enabled": .boolean,
                "shutdown-grace-period": .value,
            ],
            "configuration": [
                "containerd-registry-config-path": .value,
                "mirrored-registries": .list,
                "mirror-targets": .list,
                "resolve-tags": .boolean,
                "prepend-existing": .boolean,
            ],
            "cleanup": [
                "addr": .value,
                "containerd-registry-config-path": .value,
            ],
            "containerd-prep": [
                "containerd-config-file": .value,
                "containerd-registry-config-path": .value,
                "containerd-sock": .value,
                "containerd-binary": .value,
                "restart-command": .value,
                "restart-systemd": .boolean,
                "restart-timeout": .value,
                "dry-run": .boolean,
                "interval": .value,
            ],
            "doctor": [
                "store": .value,
                "containerd-sock": .value,
                "containerd-namespace": .value,
                "containerd-content-path": .value,
                "containerd-config-file": .value,
                "containerd-registry-config-path": .value,
                "mirrored-registries": .list,
                "registry-addr": .value,
                "metrics-addr": .value,
                "router-addr": .value,
                "dns-bootstrap-domain": .value,
                "data-dir": .value,
                "format": .value,
                "watch": .boolean,
            ],
            "cleanup-wait": [
                "probe-endpoint": .value,
                "threshold": .value,
                "period": .value,
            ],
            "remove-taint": [
                "node-name": .value,
                "taint-key": .value,
                "probe-endpoint": .value,
                "interval": .value,
                "api-server": .value,
                "service-account-path": .value,
            ],
            "dht": [
                "bootstrap-kind": .value,
                "dns-bootstrap-domain": .value,
                "http-bootstrap-url": .value,
                "http-bootstrap-cert-dir": .value,
                "static-bootstrap-peers": .list,
                "router-addr": .value,
                "metrics-addr": .value,
                "data-dir": .value,
                "dht-nodes": .list,
                "create": .boolean,
                "dht-timeout": .value,
                "format": .value,
            ],
            "version": ["format": .value],
            "verify": [:],
            "status": ["metrics-addr": .value, "json": .boolean],
            "top": ["metrics-addr": .value, "interval": .value],
            "pull": [
                "mirror": .value,
                "output": .value,
                "platform": .value,
                "all-platforms": .boolean,
                "username": .value,
                "password-stdin": .boolean,
                "credentials-dir": .value,
            ],
        ]
    )
}
