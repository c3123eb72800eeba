import ArgumentParser
import Foundation
import Logging
import MirrorServer
import ServiceLifecycle

/// `spegel remove-taint`: lets pods onto the node once the mirror on it is ready.
struct RemoveTaintCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove-taint",
        abstract: "Removes a taint of this Kubernetes node once the mirror is ready, then waits until it is stopped.",
        discussion: "For nodes that are made with the taint, so that no pod pulls images before the mirror can help."
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "The node.", transform: ScalarOption.text)
    var nodeName: String

    @Option(help: "Key of the taint.", transform: ScalarOption.text)
    var taintKey: String

    @Option(help: "HOST:PORT whose /readyz says that the mirror is ready.", transform: ListenAddressOption.parse)
    var probeEndpoint = ListenAddress(host: "127.0.0.1", port: 5000)

    @Option(help: "Time between two attempts.", transform: DurationOption.positive)
    var interval: Duration = .seconds(10)

    @Option(help: "URL of the Kubernetes API; inside a pod, that of its cluster.", transform: ScalarOption.httpURL)
    var apiServer: String?

    @Option(help: "Directory with the service account's token and ca.crt.", transform: ScalarOption.text)
    var serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

    func validate() throws {
        guard probeEndpoint.host != nil, probeEndpoint.port != 0 else {
            throw ValidationError("'--probe-endpoint \(probeEndpoint)' needs a host and a port above 0.")
        }
        guard nodeName.utf8.allSatisfy({ $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "?") }) else {
            throw ValidationError("'--node-name \(nodeName)' is no name of a node.")
        }
    }

    func run() async throws {
        let remover = TaintRemover(
            api: KubernetesAPI(
                server: apiServer ?? KubernetesAPI.serverOfThisPod(ProcessInfo.processInfo.environment),
                serviceAccountPath: serviceAccountPath),
            node: nodeName, key: taintKey, probe: "http://\(probeEndpoint)/readyz", interval: interval,
            logger: .program(global))
        try await ServiceGroup(
            services: [remover], gracefulShutdownSignals: [.sigterm, .sigint], logger: .quiet(global.logLevel)
        ).run()
    }
}
