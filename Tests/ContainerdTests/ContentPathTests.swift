import ContainerdTestKit
import Foundation
import Logging
import Metrics
import TestSupport
import Testing

@testable import ContainerdContentStore

/// A content path that containerd makes late, as 1.7.24 to 2.2 do with the first content.
@Suite(.timeLimit(.minutes(20))) struct ContentPathTests {
    @Test func aDirectoryThatComesLaterIsReadAtTheNextSignal() async throws {
        let daemon = try await ContainerdDaemon.start()
        let folder = try TemporaryDirectory()
        let path = folder.path("content")
        let client = try ContainerdClient(
            socketPath: daemon.socketPath, namespace: "k8s.io", callTimeout: .seconds(60))
        let running = Task { try await client.run() }
        try await daemon.ctr("namespaces", "create", "k8s.io")
        let root = try #require(try await client.contentRoot())
        let state = ContainerdState(
            configuration: .init(socketPath: daemon.socketPath, contentPath: path),
            metricsFactory: NOOPMetricsHandler.instance, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        )
        let synchroniser = Synchroniser(client: client, state: state, reportedContentPath: path)

        // Nothing is wrong on a node without content.
        try await synchroniser.reconcile()
        let empty = try #require(state.read { $0.health.access }).description
        #expect(empty.contains("holds no content yet"), "\(empty)")
        #expect(!empty.contains("mount"), "\(empty)")
        #expect(!synchroniser.directoryHasAppeared())

        // With content and without the directory something is.
        let missing = BlobAccess.service(BlobDirectory(path: path), .missing, reported: path).description
        #expect(missing.contains("does not exist"), "\(missing)")

        try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: root)
        #expect(synchroniser.directoryHasAppeared())
        try await synchroniser.reconcile()
        #expect(state.read { $0.health.access } == .files(path: path))
        #expect(!synchroniser.directoryHasAppeared())

        client.shutdown()
        try await running.value
        try await daemon.stop()
    }
}
