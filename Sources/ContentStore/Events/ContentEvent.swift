import OCIDistribution

/// A change in a store.
///
/// A subscription begins with a snapshot: ``snapshotStarted``, an ``imageSet(_:)`` for every image, a
/// ``contentAdded(_:)`` for all content, ``snapshotComplete``. Changes follow, in the order in which they happened.
/// When a subscriber lags behind, or the backend missed changes, another snapshot follows, which replaces everything
/// the subscriber knew: what it does not mention is gone.
public enum ContentEvent: Sendable, Hashable {
    /// A snapshot begins; it replaces everything before it.
    case snapshotStarted
    /// A name was added, or names something else now.
    case imageSet(StoredImage)
    /// A name was removed.
    case imageRemoved(Reference)
    /// Content appeared, or what is known of it (its sources, its media type) changed.
    case contentAdded(ContentInfo)
    /// Content is gone.
    case contentRemoved(Digest)
    /// All of the snapshot was told.
    case snapshotComplete
}
