import ContainerdContentStore
import ContainerdTestKit
import ContentStore
import ContentStoreConformance
import Foundation
import Logging
import OCIDistribution
import Synchronization
import TestSupport

/// A store over a namespace of a real containerd, changed from outside with `ctr` and, where `ctr` cannot, over another
/// connection.
final class ContainerdBackend: ConformanceBackend {
    let store: any ContentStore
    let containerd: ContainerdContentStore
    let daemon: ContainerdDaemon
    let namespace: String
    private let client: ContainerdClient
    private let running: Task<Void, any Error>

    /// What containerd can do. Content has sha256 digests only.
    static let features: Set<ConformanceFeature> = [
        .writing, .absentTargets, .unreferencedContent, .emptyContent, .immediateAnswers, .arrivingContent,
    ]
    /// Without its files, content is seen when it is complete.
    static let featuresWithoutFiles = features.subtracting([.arrivingContent])
    var features: Set<ConformanceFeature> { Self.features }

    private static let namespaces = Mutex(0)

    /// Begins with an empty namespace.
    init(_ daemon: ContainerdDaemon, contentPath: String? = nil) async throws {
        let number = Self.namespaces.withLock { number in
            number += 1
            return number
        }
        self.daemon = daemon
        namespace = "case-\(number)"
        try await daemon.ctr("namespaces", "create", namespace)
        containerd = makeStore(daemon, namespace: namespace, contentPath: contentPath)
        store = containerd
        let client = try ContainerdClient(
            socketPath: daemon.socketPath, namespace: namespace, callTimeout: .seconds(60))
        self.client = client
        running = Task { try await client.run() }
        try await containerd.start()
        try await containerd.waitUntilIndexed()
    }

    func put(_ bytes: [UInt8], as digest: Digest) async throws {
        let folder = try TemporaryDirectory()
        let file = "\(folder.path)/content"
        try Data(bytes).write(to: URL(fileURLWithPath: file))
        let ctr = daemon.ctrCommand(namespace).joined(separator: " ")
        // `ctr content ingest` reads standard input.
        try await Command.check([
            "sh", "-c",
            """
            \(ctr) content ingest --expected-digest \(digest) --expected-size \(bytes.count) \
            put-\(digest.hex) < \(file) &&
            \(ctr) content label \(digest) containerd.io/gc.root=now
            """,
        ])
    }

    func removeContent(_ digest: Digest) async throws {
        try await daemon.ctr(namespace: namespace, "content", "rm", digest.description)
    }

    func setImage(_ reference: Reference, to target: Descriptor) async throws {
        try await client.setImage(ContainerdImage(name: reference.description, target: target))
    }

    func removeImage(_ reference: Reference) async throws {
        try await daemon.ctr(namespace: namespace, "images", "rm", reference.description)
    }

    func tearDown() async throws {
        await containerd.shutdown()
        client.shutdown()
        try? await running.value
    }
}

/// A store over a daemon's namespace, with the waits of a test.
func makeStore(
    _ daemon: ContainerdDaemon, namespace: String = "k8s.io", contentPath: String? = nil,
    configure: (inout ContainerdConfiguration) -> Void = { _ in }
) -> ContainerdContentStore {
    var configuration = ContainerdConfiguration(
        socketPath: daemon.socketPath, namespace: namespace, contentPath: contentPath)
    // Longer than a busy machine delays containerd: some tests count closed connections.
    configuration.callTimeout = .seconds(60)
    configure(&configuration)
    var logger = Logger(label: "containerd-tests")
    logger.logLevel = .critical
    return ContainerdContentStore(configuration: configuration, logger: logger)
}
