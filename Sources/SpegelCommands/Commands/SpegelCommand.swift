import ArgumentParser

/// `spegel`, which only has subcommands.
struct SpegelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "spegel",
        abstract: "A stateless peer-to-peer mirror of OCI registries for the nodes of a cluster.",
        discussion: """
            Every option can also be given as an environment variable of the same name in upper snake case \
            (--registry-addr is REGISTRY_ADDR); the option wins.
            """,
        version: Version.current,
        subcommands: [
            RegistryCommand.self, ConfigurationCommand.self, CleanupCommand.self, CleanupWaitCommand.self,
            ContainerdPrepCommand.self, DoctorCommand.self, RemoveTaintCommand.self,
            DHTCommand.self, VersionCommand.self, VerifyCommand.self, PullCommand.self,
            StatusCommand.self, TopCommand.self,
        ]
    )

    @OptionGroup var global: GlobalOptions
}
