import ArgumentParser
import MirrorServer

/// `spegel cleanup-wait`: waits until every node has cleaned up.
struct CleanupWaitCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cleanup-wait",
        abstract: "Waits until every address of the probe host reports that it has cleaned up."
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "HOST:PORT that every cleaned-up node answers on.", transform: ListenAddressOption.parse)
    var probeEndpoint: ListenAddress

    @Option(help: "Rounds in a row that must succeed.", transform: ScalarOption.integer(1...1000))
    var threshold = 3

    @Option(help: "Time between rounds.", transform: DurationOption.positive)
    var period: Duration = .seconds(2)

    func validate() throws {
        guard probeEndpoint.host != nil, probeEndpoint.port != 0 else {
            throw ValidationError("'--probe-endpoint \(probeEndpoint)' needs a host and a port above 0.")
        }
    }

    func run() throws {
        throw CommandFailure("'cleanup-wait' is not available yet")
    }
}
