import ContentStore
import NIOConcurrencyHelpers
import OCIDistribution

/// What a subscriber knows of a store from its events.
public struct StoreView: Sendable {
    /// Names and their targets.
    public private(set) var images: [Reference: Digest] = [:]
    /// Content.
    public private(set) var contents: [Digest: ContentInfo] = [:]
    /// Whether a snapshot was received to its end.
    public private(set) var isComplete = false
    /// How many snapshots began.
    public private(set) var snapshots = 0

    /// Knows nothing.
    public init() {}

    /// Takes an event in.
    public mutating func apply(_ event: ContentEvent) {
        switch event {
        case .snapshotStarted:
            images = [:]
            contents = [:]
            isComplete = false
            snapshots += 1
        case .imageSet(let image): images[image.reference] = image.target.digest
        case .imageRemoved(let reference): images[reference] = nil
        case .contentAdded(let info): contents[info.digest] = info
        case .contentRemoved(let digest): contents[digest] = nil
        case .snapshotComplete: isComplete = true
        }
    }
}

/// Follows a store's events.
public final class EventRecorder: Sendable {
    private let state = NIOLockedValueBox(StoreView())
    private let task: NIOLockedValueBox<Task<Void, Never>?> = NIOLockedValueBox(nil)

    /// Begins to follow.
    public init(_ store: any ContentStore) {
        let events = store.events()
        let state = state
        task.withLockedValue {
            $0 = Task { for await event in events { state.withLockedValue { $0.apply(event) } } }
        }
    }

    /// What is known now.
    public var view: StoreView { state.withLockedValue { $0 } }

    /// Ends following.
    public func stop() { task.withLockedValue { $0?.cancel() } }

    /// Waits until what is known is as it should be.
    ///
    /// - Throws: ``ConformanceFailure`` when that never happens.
    public func wait(_ what: String, until isSo: (StoreView) -> Bool) async throws {
        let limit = ContinuousClock.now + .seconds(60)
        while true {
            let view = view
            if view.isComplete, isSo(view) { return }
            guard ContinuousClock.now < limit else {
                throw ConformanceFailure(
                    "events never reported \(what): \(view.images.count) images, \(view.contents.count) blobs")
            }
            try await Task.sleep(for: .milliseconds(5))
        }
    }
}
