import ArgumentParser
import ContentStore
import Foundation
import Logging
import MirrorServer
import NIOCore

/// A registry server over an OCI image layout, as a process of its own for the other benchmarks. Prints its port and
/// ends with its standard input.
struct ServerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "server", shouldDisplay: false)

    @Option var store: String
    @Option var eventLoops: Int
    @Option var connections = 16_384

    func run() async throws {
        OpenFileLimit.raise()
        let content = try await OnDiskContentStore.open(path: store)
        var http = HTTPServerConfiguration(listen: [ListenAddress(host: "127.0.0.1", port: 0)], eventLoops: eventLoops)
        http.limits.connections = connections
        http.limits.idleTimeout = .seconds(600)
        http.limits.progressTimeout = .seconds(600)
        var logger = Logger(label: "server")
        logger.logLevel = .warning
        let server = RegistryServer(configuration: .init(http: http), store: content, logger: logger)
        let addresses = try await server.start()
        // Not print, whose buffer would keep it from a pipe.
        FileHandle.standardOutput.write(Data("\(addresses.first?.port ?? 0)\n".utf8))
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            Thread.detachNewThread {
                while readLine() != nil {}
                continuation.resume()
            }
        }
        await server.shutdown(gracePeriod: .zero)
    }
}
