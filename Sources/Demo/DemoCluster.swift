import ContentStore
import Foundation
import Logging
import MirrorServer
import OCIDistribution
import PeerRouting
import RegistryClient
import SpegelCommands
import Synchronization

/// The nodes of the demonstration and their processes.
final class DemoCluster: Sendable {
    let nodes: [DemoNode]
    private let program: String
    private let terminal: Terminal
    private let logger: Logger
    private let processes = Mutex<[Int: DaemonProcess]>([:])

    init(program: String, nodes: [DemoNode], terminal: Terminal, logger: Logger) {
        self.program = program
        self.nodes = nodes
        self.terminal = terminal
        self.logger = logger
    }

    /// Starts every node and waits until all listen.
    ///
    /// - Throws: ``CommandFailure``.
    func start() async throws {
        terminal.line()
        terminal.line(terminal.bold("Starting three nodes that find each other through a DHT"))
        for node in nodes {
            if node.number > 1 {
                // An empty store.
                _ = try await OnDiskContentStore.open(path: node.store, options: .receiving(logger: logger))
            }
            let process = try DaemonProcess(
                program: program, arguments: node.arguments, logPath: node.logPath)
            processes.withLock { $0[node.number] = process }
            terminal.line("  \(process.commandLine)")
            try await process.waitUntilListening(node)
        }
        terminal.line("  the first has the image, the others have nothing; their logs are beside \(nodes[0].logPath)")
    }

    /// Waits until the last node finds what the first one has.
    func waitUntilFound(_ reference: Reference) async throws {
        guard let last = nodes.last, let tag = reference.tag else { return }
        let manifest = reference.digest.map { ManifestReference.digest($0) } ?? .tag(tag)
        let clock = ContinuousClock()
        let began = clock.now
        let client = RegistryClient(logger: logger)
        var result: Result<Void, PullError> = .success(())
        while true {
            do throws(PullError) {
                _ = try await client.manifest(
                    manifest, repository: reference.repository, registry: reference.registry, from: last.endpoint)
                result = .success(())
            } catch {
                result = .failure(error)
            }
            if case .success = result { break }
            guard clock.now - began < .seconds(60) else { break }
            do { try await Task.sleep(for: .milliseconds(50)) } catch { break }
        }
        await client.shutdown()
        try Task.checkCancellation()
        if case .failure(let error) = result {
            throw CommandFailure("the nodes do not find each other: \(error)")
        }
        terminal.line("  the third node found it after \(Quantity.time(clock.now - began))")
    }

    /// Waits until a node is known as one that has content.
    ///
    /// - Throws: ``CommandFailure``.
    func waitUntilAnnounced(_ digest: Digest, by node: DemoNode) async throws {
        let patience = Duration.seconds(60)
        let client = DHTClient(
            source: HTTPBootstrapSource(url: "http://\(node.bootstrap)/id"), clusterPort: node.registry.port,
            isLocal: true, timeout: patience, logger: logger)
        try await client.joined { (router: KademliaRouter) -> Void in
            let deadline = ContinuousClock.now + patience
            while ContinuousClock.now < deadline {
                for await peer in router.providers(for: digest.description, limit: 0)
                where peer.addresses.contains(where: { $0.description == node.host }) {
                    return
                }
                try await Task.sleep(for: .milliseconds(100))
            }
            throw CommandFailure("node \(node.number) does not tell the others that it has \(digest)")
        }
    }

    /// Kills the node at an address, if it is one of these and runs.
    ///
    /// - Returns: its number.
    func kill(host: String) -> Int? {
        guard let node = nodes.first(where: { $0.host == host }),
            let process = processes.withLock({ $0.removeValue(forKey: node.number) })
        else { return nil }
        process.kill()
        return node.number
    }

    /// Stops all that run.
    func stop() async {
        let processes = processes.withLock { processes in
            defer { processes = [:] }
            return Array(processes.values)
        }
        await withTaskGroup(of: Void.self) { group in
            for process in processes { group.addTask { await process.stop() } }
        }
    }
}
