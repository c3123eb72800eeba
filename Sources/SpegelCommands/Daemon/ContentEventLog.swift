import ContentStore
import Logging
import OCIDistribution
import ServiceLifecycle

/// Logs what changes in the store.
///
/// What is there from the start, or again after a gap, is only counted.
struct ContentEventLog: Service {
    private let store: any ContentStore
    private let logger: Logger

    init(store: any ContentStore, logger: Logger) {
        self.store = store
        self.logger = logger
    }

    func run() async throws {
        // Names are as many as the store has images; the digests of a snapshot are not kept.
        var names: Set<Reference> = []
        var contents = 0
        var inSnapshot = false
        for await event in store.events().cancelOnGracefulShutdown() {
            switch event {
            case .snapshotStarted:
                inSnapshot = true
                names = []
                contents = 0
            case .snapshotComplete:
                inSnapshot = false
                logger.info(
                    "store listed",
                    metadata: ["images": .stringConvertible(names.count), "contents": .stringConvertible(contents)])
            case .imageSet(let image):
                let isNew = names.insert(image.reference).inserted
                if !inSnapshot { log("\(image.reference)", isNew ? "CREATE" : "UPDATE") }
            case .imageRemoved(let reference):
                names.remove(reference)
                if !inSnapshot { log("\(reference)", "DELETE") }
            case .contentAdded(let info):
                contents += 1
                if !inSnapshot { log("\(info.digest)", "CREATE") }
            case .contentRemoved(let digest):
                if !inSnapshot { log("\(digest)", "DELETE") }
            }
        }
    }

    private func log(_ key: String, _ type: String) {
        logger.info("OCI event", metadata: ["key": "\(key)", "type": "\(type)"])
    }
}
