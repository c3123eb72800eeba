import ContentStore
import Foundation
import Logging
import MirrorServer
import NIOCore
import OCIDistribution
import ServiceLifecycle
import UnixSignals

/// Serves one artifact from memory until it is told to stop.
@main
struct RegistryOnly {
    static func main() async throws {
        let logger = Logger(label: "example")

        // Content: one blob, and a manifest that refers to it.
        let store = InMemoryContentStore()
        let blob = ByteBuffer(string: "name,value\npi,3.14\n")
        let blobInfo = try await store.write(blob, as: Digest.hash(of: blob.readableBytesView))
        let empty = ByteBuffer(string: "{}")
        let emptyInfo = try await store.write(empty, as: Digest.hash(of: empty.readableBytesView))
        let manifest = ImageManifest(
            mediaType: .imageManifest,
            artifactType: MediaType("application/vnd.example.table"),
            config: Descriptor(mediaType: .empty, digest: emptyInfo.digest, size: emptyInfo.size),
            layers: [Descriptor(mediaType: MediaType("text/csv"), digest: blobInfo.digest, size: blobInfo.size)]
        )
        let bytes = ByteBuffer(bytes: try JSONEncoder().encode(manifest))
        let manifestInfo = try await store.write(bytes, as: Digest.hash(of: bytes.readableBytesView))
        let name = try Reference(parsing: "registry.example/tables/pi:v1")
        try await store.tag(manifestInfo.descriptor, as: name)

        // The server. Any ContentStore does; a MissHandler would answer for what it does not have.
        let address = try ListenAddress(parsing: CommandLine.arguments.dropFirst().first ?? "127.0.0.1:5000")
        var configuration = RegistryServer.Configuration(http: HTTPServerConfiguration(listen: [address]))
        configuration.defaultRegistry = "registry.example"
        configuration.filter = try ReferenceFilter(mirroredRegistries: [], patterns: ["^registry\\.example/private/"])
        let server = RegistryServer(configuration: configuration, store: store, logger: logger)

        // The server is a Service: it starts and stops in an orderly way together with everything else of the program.
        let group = ServiceGroup(
            services: [server], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
        try await group.run()
    }
}
