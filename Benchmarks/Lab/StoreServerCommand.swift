import ArgumentParser
import ContainerdContentStore
import ContentStore
import Foundation
import Logging
import MirrorServer
import NIOCore

/// A registry server over one store, as a process of its own for the benchmark. Prints how long it took until the store
/// knew everything, and its port; ends with its standard input.
struct StoreServerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "store-server", shouldDisplay: false)

    @Option var socket: String?
    @Option var contentPath: String?
    @Option var layout: String?

    func run() async throws {
        let begin = ContinuousClock.now
        var logger = Logger(label: "store-server")
        logger.logLevel = .error
        let store: any ContentStore
        if let socket {
            let containerd = ContainerdContentStore(
                configuration: ContainerdConfiguration(socketPath: socket, contentPath: contentPath), logger: logger)
            try await containerd.start()
            try await containerd.waitUntilIndexed()
            store = containerd
        } else if let layout {
            store = try await OnDiskContentStore.open(path: layout)
        } else {
            throw ValidationError("--socket or --layout")
        }
        let seconds = begin.duration(to: .now) / .seconds(1)
        let http = HTTPServerConfiguration(listen: [ListenAddress(host: "127.0.0.1", port: 0)])
        let server = RegistryServer(configuration: .init(http: http), store: store, logger: logger)
        let port = try await server.start().first?.port ?? 0
        FileHandle.standardOutput.write(Data("\(seconds) \(port)\n".utf8))
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            Thread.detachNewThread {
                while readLine() != nil {}
                continuation.resume()
            }
        }
        await server.shutdown(gracePeriod: .zero)
        withExtendedLifetime(store) {}
    }
}
