import ContentStore
import OCIDistribution

/// The keys to advertise, derived from the store's events.
///
/// A value type without I/O. A key is a digest, or `registry/repository:tag` of a tag whose target is present.
/// It grows with the store only: one entry for each image and each piece of content.
struct AdvertisedSet: Sendable {
    private let filter: ReferenceFilter
    private var images: [Reference: StoredImage] = [:]
    private var contents: [Digest: ContentInfo] = [:]
    /// Tags by the digest of their target, so that they follow its content.
    private var tags: [Digest: Set<Reference>] = [:]
    /// The keys to be advertised, with what they count as.
    private(set) var keys: [String: Key] = [:]
    /// Keys that were added or removed since ``takeChanges()``: added if they are in ``keys``.
    private var changed: Set<String> = []
    private var replaced: (images: [Reference: StoredImage], contents: [Digest: ContentInfo])?

    /// How a key is counted.
    struct Key: Sendable, Hashable {
        /// The registry it is counted for; empty when it is not known.
        var registry: String
        var isTag: Bool
        /// Whether it is what an image names.
        var isImage: Bool
    }

    init(filter: ReferenceFilter) { self.filter = filter }

    /// Whether a snapshot is being received; keys are complete only when none is.
    var isReceivingSnapshot: Bool { replaced != nil }
    /// The images in the store.
    var storedImages: [StoredImage] { Array(images.values) }

    /// The information on content that is in the store.
    func info(_ digest: Digest) -> ContentInfo? { contents[digest] }

    /// Applies an event.
    mutating func apply(_ event: ContentEvent) {
        switch event {
        case .snapshotStarted:
            replaced = ([:], [:])
        case .imageSet(let image):
            if replaced != nil { replaced?.images[image.reference] = image } else { set(image) }
        case .imageRemoved(let reference):
            if replaced != nil { replaced?.images[reference] = nil } else { remove(reference) }
        case .contentAdded(let info):
            if replaced != nil { replaced?.contents[info.digest] = info } else { add(info) }
        case .contentRemoved(let digest):
            if replaced != nil { replaced?.contents[digest] = nil } else { remove(digest) }
        case .snapshotComplete:
            guard let new = replaced else { return }
            replaced = nil
            replace(images: new.images, contents: new.contents)
        }
    }

    /// Replaces everything by what the store lists.
    mutating func replace(images newImages: [Reference: StoredImage], contents newContents: [Digest: ContentInfo]) {
        for reference in images.keys where newImages[reference] == nil { remove(reference) }
        for digest in contents.keys where newContents[digest] == nil { remove(digest) }
        for image in newImages.values where images[image.reference] != image { set(image) }
        for info in newContents.values where contents[info.digest] != info { add(info) }
    }

    /// The keys to advertise and to withdraw since the last call.
    mutating func takeChanges() -> (added: [String], removed: [String]) {
        defer { changed = [] }
        return (changed.filter { keys[$0] != nil }.sorted(), changed.filter { keys[$0] == nil }.sorted())
    }

    private mutating func set(_ image: StoredImage) {
        let before = images.updateValue(image, forKey: image.reference)?.target.digest
        if let before, before != image.target.digest {
            tags[before]?.remove(image.reference)
            if tags[before]?.isEmpty ?? false { tags[before] = nil }
            refresh(before)
        }
        tags[image.target.digest, default: []].insert(image.reference)
        refresh(image.target.digest)
        refreshTag(image.reference)
    }

    private mutating func remove(_ reference: Reference) {
        guard let image = images.removeValue(forKey: reference) else { return }
        tags[image.target.digest]?.remove(reference)
        if tags[image.target.digest]?.isEmpty ?? false { tags[image.target.digest] = nil }
        refreshTag(reference)
        refresh(image.target.digest)
    }

    private mutating func add(_ info: ContentInfo) {
        contents[info.digest] = info
        refresh(info.digest)
        for reference in tags[info.digest] ?? [] { refreshTag(reference) }
    }

    private mutating func remove(_ digest: Digest) {
        contents[digest] = nil
        refresh(digest)
        for reference in tags[digest] ?? [] { refreshTag(reference) }
    }

    private mutating func refresh(_ digest: Digest) {
        let key = digest.description
        guard let info = contents[digest] else { return put(key, nil) }
        let names = tags[digest] ?? []
        let sources = info.sources.filter { filter.allows(registry: $0.registry, repository: $0.repository, tag: nil) }
        let named = names.filter { filter.allows($0) }
        guard filter.isUnrestricted || !sources.isEmpty || !named.isEmpty else { return put(key, nil) }
        let registry = sources.first?.registry ?? named.map(\.registry).min() ?? ""
        put(key, Key(registry: registry, isTag: false, isImage: !names.isEmpty))
    }

    /// A tag's key is advertised while its target is present and served as a manifest: not for one over 4 MiB, of Docker schema 1
    /// or of another type, for which peers would get 404. A name that has a digest as well is no tag: the
    /// tag may lead elsewhere by now.
    private mutating func refreshTag(_ reference: Reference) {
        guard reference.digest == nil, let key = reference.taggedName else { return }
        let isAdvertised = filter.allows(reference) && hasTarget(reference)
        put(key, isAdvertised ? Key(registry: reference.registry, isTag: true, isImage: true) : nil)
    }

    private func hasTarget(_ reference: Reference) -> Bool {
        images[reference].map { contents[$0.target.digest]?.mediaType.isManifest ?? false } ?? false
    }

    private mutating func put(_ key: String, _ value: Key?) {
        let before = keys[key]
        guard before != value else { return }
        keys[key] = value
        // A change of the counts alone is not advertised.
        if (before == nil) != (value == nil) { changed.insert(key) }
    }
}
