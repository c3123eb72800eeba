/// This program run again as a mirror that has one peer and nothing of its own, or as a plain relay to that peer.
final class MirrorProcess: BenchmarkServer {
    let name: String
    private let process: OwnProcess

    init(_ name: String, peerPort: Int, eventLoops: Int, arguments: [String]) throws {
        self.name = name
        process = try OwnProcess(
            ["mirror-node", "--peer-port", "\(peerPort)", "--event-loops", "\(eventLoops)"] + arguments)
    }

    var port: Int { process.port }
    var processes: [Int32] { [process.identifier] }
    func stop() { process.stop() }
}
