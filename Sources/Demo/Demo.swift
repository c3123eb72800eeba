import ContentStore
import Foundation
import Logging
import MirrorServer
import OCIDistribution
import RegistryClient
import SpegelCommands
import UnixSignals

/// The demonstration: three nodes that find each other, a pull through one of what another has, and the same again while
/// the node that serves it is killed; every byte is verified.
struct Demo {
    private let program: String
    private let imagePath: String
    private let workDirectory: String
    private let registry: ListenAddress
    private let staysUp: Bool
    private let terminal: Terminal
    private let logger: Logger

    /// - Parameters:
    ///   - program: Path of the daemon.
    ///   - imagePath: An OCI image layout.
    ///   - workDirectory: Removed and made anew, if it is empty or was made by a demonstration before.
    ///   - registry: Address of the first node, one in 127.0.0.0/8; the others have the two after it.
    init(
        program: String, imagePath: String, workDirectory: String, registry: ListenAddress, staysUp: Bool,
        terminal: Terminal, logger: Logger
    ) {
        self.program = program
        self.imagePath = imagePath
        self.workDirectory = workDirectory
        self.registry = registry
        self.staysUp = staysUp
        self.terminal = terminal
        self.logger = logger
    }

    func run() async throws {
        // A signal must stop the daemons too, at any moment.
        let (signals, ready) = AsyncStream<UnixSignal>.makeStream(bufferingPolicy: .bufferingNewest(1))
        // For the time after the scenes, with which the first stream ends.
        let (laterSignals, readyLater) = AsyncStream<UnixSignal>.makeStream(bufferingPolicy: .bufferingNewest(1))
        let trap = Task {
            for await signal in await UnixSignalsSequence(trapping: .sigint, .sigterm) {
                ready.yield(signal)
                readyLater.yield(signal)
            }
        }
        defer { trap.cancel() }

        let reference = try await chooseImage()
        try prepareWorkDirectory()
        let cluster = DemoCluster(
            program: program,
            nodes: DemoNode.nodes(
                from: registry, stores: [imagePath, "\(workDirectory)/node2", "\(workDirectory)/node3"],
                logDirectory: workDirectory),
            terminal: terminal, logger: logger)
        do {
            let isInterrupted = try await withThrowingTaskGroup(of: Bool.self) { group in
                group.addTask {
                    for await _ in signals { return true }
                    return false
                }
                group.addTask {
                    try await cluster.start()
                    try await cluster.waitUntilFound(reference)
                    let scenes = DemoScenes(
                        cluster: cluster, reference: reference, workDirectory: workDirectory, terminal: terminal,
                        logger: logger)
                    try await scenes.play()
                    return false
                }
                defer { group.cancelAll() }
                return try await group.next() ?? false
            }
            if staysUp, !isInterrupted {
                printHints(reference, at: cluster.nodes[2].registry)
                terminal.line()
                terminal.line(terminal.bold("Serving until Ctrl-C"))
                for await _ in laterSignals { break }
            }
            await cluster.stop()
            if isInterrupted { throw CommandFailure("interrupted", status: 130) }
        } catch {
            await cluster.stop()
            throw error
        }
    }

    /// The first image with a name in the layout.
    private func chooseImage() async throws -> Reference {
        let store: OnDiskContentStore
        do {
            store = try await OnDiskContentStore.open(
                path: imagePath, options: .serving(imagePath, logger: logger))
        } catch let error as ContentStoreError {
            throw CommandFailure("\(error)", status: 64)
        }
        guard let image = try await store.images().first else {
            throw CommandFailure("\(imagePath) holds no image with a name", status: 64)
        }
        let contents = try await store.contents(of: image)
        let bytes = contents.reduce(Int64(0)) { $0 &+ $1.size }
        terminal.line(terminal.bold("The image: \(image.reference)"))
        terminal.line("  \(imagePath), \(contents.count) pieces, \(Quantity.bytes(bytes))")
        terminal.line("  \(image.target.mediaType) \(image.target.digest)")
        return image.reference
    }

    private func prepareWorkDirectory() throws {
        let files = FileManager.default
        let marker = "\(workDirectory)/.demo"
        if files.fileExists(atPath: workDirectory) {
            let isEmpty = (try? files.contentsOfDirectory(atPath: workDirectory).isEmpty) ?? false
            guard isEmpty || files.fileExists(atPath: marker) else {
                throw CommandFailure("\(workDirectory) is in the way; name another with --work-dir", status: 64)
            }
            try files.removeItem(atPath: workDirectory)
        }
        try files.createDirectory(atPath: workDirectory, withIntermediateDirectories: true)
        try Data().write(to: URL(fileURLWithPath: marker))
    }

    private func printHints(_ reference: Reference, at address: ListenAddress) {
        let plain = "\(address)/\(reference)"
        terminal.line()
        terminal.line(terminal.bold("Pull it with your own tools, through the third node"))
        terminal.line("  skopeo inspect --tls-verify=false docker://\(plain)")
        terminal.line("  skopeo copy --all --src-tls-verify=false docker://\(plain) dir:/tmp/spegel-demo")
        terminal.line("  podman pull --tls-verify=false \(plain)")
        terminal.line("  mkdir -p /tmp/spegel-hosts/\(reference.registry)")
        terminal.line(
            "  printf '[host.\"http://\(address)\"]\\n  capabilities = [\"pull\", \"resolve\"]\\n' "
                + "> /tmp/spegel-hosts/\(reference.registry)/hosts.toml")
        terminal.line("  ctr images pull --hosts-dir /tmp/spegel-hosts --plain-http \(reference)")
    }
}
