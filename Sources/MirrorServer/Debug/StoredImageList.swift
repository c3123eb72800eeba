import ContentStore
import OCIDistribution

/// The images of the store with their sizes, for the debug page: listed again only after some time, as a page is asked for
/// often and a store may be large.
actor StoredImageList {
    struct Image: Sendable, Hashable {
        /// The name with its tag.
        var name: String
        var registry: String
        var digest: String
        /// Bytes of its content; nil when it was not counted.
        var size: Int64?
    }

    struct Listing: Sendable {
        /// At most ``StoredImageList/limit``, by name.
        var images: [Image] = []
        /// How many there are.
        var count = 0
        /// Why there is no listing.
        var failure: String?
    }

    /// Most images listed.
    static let limit = 200
    private static let lifetime: Duration = .seconds(15)

    private let store: any ContentStore
    private var listing = Listing()
    private var task: Task<Listing, Never>?
    private var listedAt: ContinuousClock.Instant?

    init(_ store: any ContentStore) { self.store = store }

    /// A listing that is at most 15 s old. Pages that ask at once share one.
    var current: Listing {
        get async {
            if let listedAt, ContinuousClock.now - listedAt < Self.lifetime { return listing }
            let task = self.task ?? Task { [store] in await Self.list(store) }
            self.task = task
            let listing = await task.value
            if self.task == task {
                self.task = nil
                self.listing = listing
                listedAt = .now
            }
            return listing
        }
    }

    private static func list(_ store: any ContentStore) async -> Listing {
        do {
            let all = try await store.images()
            var listing = Listing()
            listing.count = all.count
            for image in all.sorted(by: { "\($0.reference)" < "\($1.reference)" }).prefix(limit) {
                let contents = try? await store.contents(of: image)
                listing.images.append(
                    Image(
                        name: "\(image.reference)", registry: image.reference.name, digest: "\(image.target.digest)",
                        size: contents.map { $0.reduce(0) { $0 + $1.size } }))
            }
            return listing
        } catch {
            return Listing(failure: "\(error)")
        }
    }
}
