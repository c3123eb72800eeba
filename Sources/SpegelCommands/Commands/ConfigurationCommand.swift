import ArgumentParser
import Logging
import MirrorServer
import NodeConfiguration

/// `spegel configuration`: points containerd at the mirror.
struct ConfigurationCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "configuration",
        abstract: "Writes containerd's registry configuration so that it asks the mirror first.",
        discussion: """
            Writes DIRECTORY/REGISTRY/hosts.toml for each mirrored registry. What was there before is moved to \
            DIRECTORY/_backup once; 'spegel cleanup' brings it back. A crash leaves the old or the new configuration. \
            containerd reads the files at each pull and needs no restart, but its config_path must name DIRECTORY \
            (see 'spegel containerd-prep').
            """
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "Directory of containerd's registry configuration.", transform: ScalarOption.text)
    var containerdRegistryConfigPath = "/etc/containerd/certs.d"

    @Option(
        help: "Registries to mirror, as http(s)://host[:port]; none or _default for all.", transform: RegistryURL.parse)
    var mirroredRegistries: [RegistryURL] = []

    @Option(help: "Mirrors to ask, as http(s)://host[:port].", transform: RegistryURL.parseMirrorTarget)
    var mirrorTargets: [RegistryURL] = []

    @Option(help: "Whether the mirror also resolves tags.", transform: ScalarOption.boolean)
    var resolveTags = true

    @Option(help: "Whether hosts that were configured before follow the mirror.", transform: ScalarOption.boolean)
    var prependExisting = false

    func validate() throws {
        guard !mirrorTargets.isEmpty else {
            throw ValidationError("Missing '--mirror-targets': give at least one, such as http://127.0.0.1:30020.")
        }
    }

    func run() throws {
        let logger = Logger.program(global)
        let plan = MirrorConfigurationPlan(
            registries: mirroredRegistries, targets: mirrorTargets, resolvesTags: resolveTags,
            prependsExisting: prependExisting, authorization: try credentials()?.authorization)
        do {
            let notes = try ConfigurationDirectory(path: containerdRegistryConfigPath).configure(plan)
            for note in notes { logger.info("\(note)", metadata: ["path": "\(containerdRegistryConfigPath)"]) }
            logger.info(
                "containerd asks the mirror first",
                metadata: [
                    "path": "\(containerdRegistryConfigPath)",
                    "registries":
                        "\(plan.registries.isEmpty ? "all" : plan.registries.map(\.description).joined(separator: " "))",
                    "mirrors": "\(plan.targets.map(\.description).joined(separator: " "))",
                ])
        } catch let error as HostsConfigurationError {
            throw CommandFailure("\(error)")
        }
    }

    private func credentials() throws -> BasicCredentials? {
        do { return try BasicCredentials.load() } catch let failure as StartFailure {
            throw CommandFailure("\(failure)")
        }
    }
}
