import ArgumentParser
import Logging
import MirrorServer
import NIOCore
import NodeConfiguration
import ServiceLifecycle
import UnixSignals

/// `spegel cleanup`: takes the mirror out of containerd's configuration again.
struct CleanupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cleanup",
        abstract: "Restores containerd's registry configuration, then reports that until it is stopped.",
        discussion: """
            Brings back what 'spegel configuration' moved to DIRECTORY/_backup, and keeps files that were added since. Then \
            answers /readyz with 200 until SIGTERM or SIGINT, so that 'spegel cleanup-wait' sees that this node is done.
            """
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "Address to serve /readyz on.", transform: ListenAddressOption.parse)
    var addr: ListenAddress

    @Option(help: "Directory of containerd's registry configuration.", transform: ScalarOption.text)
    var containerdRegistryConfigPath = "/etc/containerd/certs.d"

    func run() async throws {
        let logger = Logger.program(global)
        do {
            let notes = try ConfigurationDirectory(path: containerdRegistryConfigPath).cleanUp()
            for note in notes ?? [] { logger.info("\(note)", metadata: ["path": "\(containerdRegistryConfigPath)"]) }
            logger.info(
                notes == nil
                    ? "no mirror was configured, nothing to restore" : "the registry configuration is restored",
                metadata: ["path": "\(containerdRegistryConfigPath)"])
        } catch let error as HostsConfigurationError {
            throw CommandFailure("\(error)")
        }
        let server = AdminServer(
            name: "cleanup", configuration: HTTPServerConfiguration(listen: [addr]),
            routes: [AdminServer.Route("/readyz") { _ in AdminServer.Response(body: ByteBuffer(string: "ok\n")) }],
            logger: logger)
        do {
            try await ServiceGroup(services: [server], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
                .run()
        } catch let error as ListenError {
            throw CommandFailure("\(error)")
        }
    }
}
