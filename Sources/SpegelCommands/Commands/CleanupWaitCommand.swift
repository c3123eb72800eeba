import ArgumentParser
import AsyncHTTPClient
import Logging
import MirrorServer
import NIOCore
import NodeConfiguration
import PeerRouting

/// `spegel cleanup-wait`: waits until every node has cleaned up.
struct CleanupWaitCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cleanup-wait",
        abstract: "Waits until every address of the probe host reports that it has cleaned up.",
        discussion: """
            Each round resolves the host anew and asks /readyz at every address. Exits with 0 after THRESHOLD rounds in a row in \
            which all answered 200. It waits as long as it takes; whoever starts it bounds it.
            """
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

    func run() async throws {
        let logger = Logger.program(global)
        var rounds = ConsecutiveRounds(threshold: threshold)
        while true {
            let outcome = await probe()
            let isDone = rounds.record(isSuccess: outcome.failure == nil)
            if let failure = outcome.failure {
                logger.info("not all nodes have cleaned up", metadata: ["reason": "\(failure)"])
            } else {
                logger.info(
                    "all nodes have cleaned up",
                    metadata: ["addresses": "\(outcome.addresses)", "rounds": "\(rounds.count) of \(threshold)"])
            }
            if isDone { return }
            try await Task.sleep(for: period)
        }
    }

    /// One address at most this many at a time.
    private static let probesAtOnce = 10
    private static let probeTimeout: TimeAmount = .seconds(1)

    private func probe() async -> (addresses: Int, failure: String?) {
        let host = probeEndpoint.host ?? ""
        let addresses: [IPAddress]
        do {
            addresses = try await NameResolver.addresses(of: host)
        } catch {
            return (0, "\(error)")
        }
        guard !addresses.isEmpty else { return (0, "\(host) has no address") }
        let port = probeEndpoint.port
        let failure = await withTaskGroup(of: String?.self) { group in
            var rest = addresses[...]
            var first: String?
            func addNext() {
                guard let address = rest.popFirst() else { return }
                group.addTask { await Self.ask(address, port: port) }
            }
            for _ in 0..<Self.probesAtOnce { addNext() }
            for await failure in group {
                first = first ?? failure
                addNext()
            }
            return first
        }
        return (addresses.count, failure)
    }

    private static func ask(_ address: IPAddress, port: UInt16) async -> String? {
        let authority = address.isV6 ? "[\(address)]:\(port)" : "\(address):\(port)"
        do {
            let request = HTTPClientRequest(url: "http://\(authority)/readyz")
            let response = try await HTTPClient.shared.execute(request, timeout: probeTimeout)
            return response.status == .ok ? nil : "\(authority) answers \(response.status.code)"
        } catch {
            return "\(authority): \(error)"
        }
    }
}
