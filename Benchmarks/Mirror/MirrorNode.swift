/// This program run again as a node, or a relay, in front of a source.
final class MirrorNode: RivalServer {
    let name: String
    private let process: OwnProcess

    init(_ name: String, peerPort: Int, eventLoops: Int, arguments: [String]) throws {
        self.name = name
        process = try OwnProcess(
            ["mirror-node", "--peer-port", "\(peerPort)", "--event-loops", "\(eventLoops)"] + arguments)
    }

    var port: Int { process.port }
    var processes: [Int32] { [process.identifier] }
    func blobPath(_ layout: ServedLayout) -> String { layout.layerPath }
    func manifestPath(_ layout: ServedLayout) -> String { layout.manifestPath }
    func stop() { process.stop() }
}
