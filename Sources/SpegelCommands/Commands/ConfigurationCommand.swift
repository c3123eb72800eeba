import ArgumentParser

/// `spegel configuration`: points containerd at the mirror.
struct ConfigurationCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "configuration",
        abstract: "Writes containerd's registry configuration so that it asks the mirror first."
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "Directory of containerd's registry configuration.", transform: ScalarOption.text)
    var containerdRegistryConfigPath = "/etc/containerd/certs.d"

    @Option(
        help: "Registries to mirror, as http(s)://host[:port]; none or _default for all.", transform: RegistryURL.parse)
    var mirroredRegistries: [RegistryURL] = []

    @Option(help: "Mirrors to ask, as http(s)://host[:port].", transform: RegistryURL.parse)
    var mirrorTargets: [RegistryURL] = []

    @Option(help: "Whether the mirror also resolves tags.", transform: ScalarOption.boolean)
    var resolveTags = true

    @Option(help: "Whether hosts that were configured before follow the mirror.", transform: ScalarOption.boolean)
    var prependExisting = false

    func validate() throws {
        guard !mirrorTargets.isEmpty else {
            throw ValidationError("Missing '--mirror-targets': give at least one, such as http://127.0.0.1:30020.")
        }
        guard !mirrorTargets.contains(.wildcard) else {
            throw ValidationError("'--mirror-targets' must name hosts; the wildcard stands for no mirror.")
        }
    }

    func run() throws {
        throw CommandFailure("'configuration' is not available yet; write containerd's hosts.toml files by hand")
    }
}
