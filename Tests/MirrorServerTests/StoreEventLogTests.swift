import ContentStore
import Logging
import OCIDistribution
import Synchronization
import Testing

@testable import MirrorServer

/// The lines that a store's events are logged as.
@Suite struct StoreEventLogTests {
    private final class Lines: Sendable {
        let all = Mutex<[String]>([])
    }

    private struct Handler: LogHandler {
        let lines: Lines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.info

        subscript(metadataKey key: String) -> Logger.MetadataValue? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let key = event.metadata?["key"].map { "\($0)" } ?? ""
            let type = event.metadata?["type"].map { "\($0)" } ?? ""
            lines.all.withLock { $0.append("\(event.message) \(type) \(key)") }
        }
    }

    /// A store reports content again when an image adds a source, and content of the snapshot when its sources change.
    @Test func contentIsCreatedOnce() throws {
        let lines = Lines()
        var log = StoreEventLog(logger: Logger(label: "test") { _ in Handler(lines: lines) })
        let first = ContentInfo(digest: Digest.hash(of: [1]), size: 1, mediaType: .octetStream)
        let second = ContentInfo(digest: Digest.hash(of: [2]), size: 1, mediaType: .octetStream)
        let events: [ContentEvent] = [
            .snapshotStarted, .contentAdded(first), .snapshotComplete, .contentAdded(first), .contentAdded(second),
            .contentAdded(second), .contentRemoved(second.digest), .contentRemoved(second.digest),
            .contentAdded(second),
        ]
        for event in events { log.record(event) }
        let key = "\(second.digest)"
        #expect(
            lines.all.withLock { $0.filter { $0.hasPrefix("OCI event") } } == [
                "OCI event CREATE \(key)", "OCI event DELETE \(key)", "OCI event CREATE \(key)",
            ])
    }
}
