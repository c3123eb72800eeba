import ContentStore
import Logging
import OCIDistribution

/// Logs the changes of a store, one line each: `"msg":"OCI event","key":…,"type":"CREATE|UPDATE|DELETE"`. The content of
/// a snapshot is only counted.
package struct StoreEventLog: Sendable {
    /// The store's content, by the events so far.
    package struct Summary: Sendable, Hashable {
        /// Whether the first snapshot is complete.
        package var isListed = false
        /// Images in the store.
        package var images = 0
    }

    private let logger: Logger
    /// As many as the store has images.
    private var images: Set<Reference> = []
    /// As many as the store has content: a store reports content again when its sources change.
    private var contents: Set<Digest> = []
    private var isInSnapshot = false
    private var isListed = false

    package init(logger: Logger) { self.logger = logger }

    package var summary: Summary { Summary(isListed: isListed, images: images.count) }

    /// Logs an event.
    package mutating func record(_ event: ContentEvent) {
        switch event {
        case .snapshotStarted:
            isInSnapshot = true
            images = []
            contents = []
        case .snapshotComplete:
            isInSnapshot = false
            isListed = true
            logger.info(
                "store listed",
                metadata: ["images": .stringConvertible(images.count), "contents": .stringConvertible(contents.count)])
        case .imageSet(let image):
            let isNew = images.insert(image.reference).inserted
            log(image.reference, isNew ? "CREATE" : "UPDATE")
        case .imageRemoved(let reference):
            images.remove(reference)
            log(reference, "DELETE")
        case .contentAdded(let info):
            guard contents.insert(info.digest).inserted else { return }
            log("\(info.digest)", "CREATE")
        case .contentRemoved(let digest):
            guard contents.remove(digest) != nil else { return }
            log("\(digest)", "DELETE")
        }
    }

    private func log(_ reference: Reference, _ type: String) {
        log(reference.taggedName ?? "\(reference)", type)
    }

    private func log(_ key: @autoclosure () -> String, _ type: String) {
        guard !isInSnapshot else { return }
        logger.info("OCI event", metadata: ["key": "\(key())", "type": "\(type)"])
    }
}
