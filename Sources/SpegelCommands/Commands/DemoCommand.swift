import ArgumentParser
import ContentStore
import Foundation
import Logging
import MirrorServer
import OCIDistribution
import RegistryClient
import UnixSignals

/// `spegel demo`: three nodes, of which one has an image and another pulls it, showing what happens.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract:
            "Three nodes on this machine: pulls what one has through another, kills the one that serves, and checks "
            + "every byte."
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "The image: an OCI image layout.", transform: ScalarOption.text)
    var image: String

    @Option(help: "Directory for what the demo writes; made anew.", transform: ScalarOption.text)
    var workDir = ".build-demo/work"

    @Option(
        help: "Address of the first node's registry; the other nodes have the two addresses after it.",
        transform: ListenAddressOption.parse)
    var registryAddr = ListenAddress(host: "127.0.0.2", port: 5000)

    @Option(help: "Whether to end after the pulls instead of serving on.", transform: ScalarOption.boolean)
    var exit = false

    func validate() throws {
        guard DemoNode.consecutiveHosts(registryAddr.host ?? "", count: 3) != nil,
            (1..<UInt16.max).contains(registryAddr.port)
        else {
            throw ValidationError(
                "'--registry-addr \(registryAddr)' needs an address such as 127.0.0.2 here, with two more after it, and "
                    + "a port from 1 to 65534.")
        }
    }

    func run() async throws {
        try await Demo(
            imagePath: image, workDirectory: workDir, registry: registryAddr, staysUp: !exit,
            terminal: .standardOutput, logger: .quiet(global.logLevel)
        ).run()
    }
}
