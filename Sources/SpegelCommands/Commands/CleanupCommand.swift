import ArgumentParser
import MirrorServer

/// `spegel cleanup`: takes the mirror out of containerd's configuration again.
struct CleanupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cleanup",
        abstract: "Restores containerd's registry configuration, then reports that until it is stopped."
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "Address to serve /readyz on.", transform: ListenAddressOption.parse)
    var addr: ListenAddress

    @Option(help: "Directory of containerd's registry configuration.", transform: ScalarOption.text)
    var containerdRegistryConfigPath = "/etc/containerd/certs.d"

    func run() throws {
        throw CommandFailure("'cleanup' is not available yet; restore containerd's hosts.toml files by hand")
    }
}
