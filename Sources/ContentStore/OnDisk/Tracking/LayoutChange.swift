import OCIDistribution

/// Something that happened to a layout's files, as a watcher tells it.
enum LayoutChange: Sendable, Hashable {
    /// `index.json` may say something else now.
    case index
    /// Directories came or went.
    case structure
    /// A blob got its name by a rename, so it is complete.
    case blobRenamed(Digest)
    /// A blob is being written in place.
    case blobChanging(Digest)
    /// A blob that was open for writing was closed.
    case blobWritten(Digest)
    /// A blob lost its name.
    case blobGone(Digest)
    /// A record of a bad blob was written or removed.
    case quarantine(Digest)
    /// Changes were lost: everything has to be looked at.
    case overflow
    /// The layout's root directory was removed, renamed or unmounted.
    case rootGone
}

/// A directory of a layout, by its part in it.
enum WatchedDirectory: Sendable, Hashable {
    case root
    case blobs
    case algorithm(DigestAlgorithm)
    case privateFiles
    case quarantine
}

/// Notices what other processes do to a layout. Used on one queue only.
protocol LayoutWatcher: AnyObject {
    /// Begins to watch a directory; once more for one that is watched is harmless.
    func watch(_ directory: Directory, as role: WatchedDirectory) throws(ContentStoreError)
    /// Ends all watching.
    func stop()
}
