import ContentStore
import Logging
import Metrics
import OCIDistribution
import PeerRouting

/// The advertiser's state: what is wanted, what the router has been told, and what is still to be told.
actor AdvertiserCore {
    private let configuration: AdvertiserConfiguration
    private let store: any ContentStore
    private let router: any PeerRouter
    private let logger: Logger
    private var metrics: AdvertiserMetrics
    private var wanted: AdvertisedSet
    /// What the router was told and has taken.
    private(set) var advertised: Set<String> = []
    private var adding: Set<String> = []
    /// What the router is being told of now: no longer to be added, and not advertised before the router has answered.
    private var offering: Set<String> = []
    private var removing: Set<String> = []
    /// Keys that the router did not take; they are tried again after a while.
    private var refused: Set<String> = []
    private var wake: AsyncStream<Void>.Continuation
    private let wakeups: AsyncStream<Void>
    private var isFlushing = false
    /// Waits to try again what the router refused.
    private var retry: Task<Void, Never>?
    /// Counts events, so that a comparison with the store can tell that it was overtaken.
    private var changes = 0

    init(
        configuration: AdvertiserConfiguration, store: any ContentStore, router: any PeerRouter,
        metrics: AdvertiserMetrics, logger: Logger
    ) {
        self.configuration = configuration
        self.store = store
        self.router = router
        self.metrics = metrics
        self.logger = logger
        wanted = AdvertisedSet(filter: configuration.filter)
        (wakeups, wake) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// Takes in a change of the store. What it means for the router follows within the batch delay.
    func take(_ event: ContentEvent) {
        let before = wanted.isReceivingSnapshot
        wanted.apply(event)
        changes += 1
        guard !wanted.isReceivingSnapshot else { return }
        log(event, isSnapshot: before)
        gather()
    }

    private func gather() {
        let (added, removed) = wanted.takeChanges()
        for key in added {
            removing.remove(key)
            if !advertised.contains(key), !refused.contains(key) { adding.insert(key) }
        }
        for key in removed {
            adding.remove(key)
            refused.remove(key)
            if advertised.contains(key) { removing.insert(key) }
        }
        // Also when no key came or went: what is counted may have changed.
        wake.yield()
    }

    /// Gives the gathered changes to the router, again and again until cancelled.
    func flushLoop() async {
        defer { retry?.cancel() }
        var delay = configuration.retryDelay
        for await _ in wakeups {
            try? await Task.sleep(for: configuration.batchDelay)
            guard !Task.isCancelled else { return }
            if await flush() {
                delay = configuration.retryDelay
            } else {
                retryLater(delay)
                delay = min(delay * 2, configuration.reconcileInterval)
            }
        }
    }

    /// Tries again what was refused. Meanwhile changes are given to the router as ever: what is withdrawn may be what
    /// makes room.
    private func retryLater(_ delay: Duration) {
        guard retry == nil else { return }
        retry = Task {
            try? await Task.sleep(for: delay)
            retry = nil
            adding.formUnion(refused)
            refused = []
            wake.yield()
        }
    }

    /// Gives everything that is left to the router.
    func flushAll() async { _ = await flush() }

    /// - Returns: whether the router took everything.
    private func flush() async -> Bool {
        // Whoever is at it takes what was added meanwhile, too, or says that it could not.
        guard !isFlushing else { return true }
        isFlushing = true
        defer { isFlushing = false }
        let size = max(1, configuration.batchKeys)
        while !removing.isEmpty {
            let batch = Array(removing.prefix(size))
            removing.subtract(batch)
            advertised.subtract(batch)
            await router.withdraw(batch)
        }
        var tookAll = true
        while !adding.isEmpty {
            let batch = Array(adding.prefix(size))
            adding.subtract(batch)
            offering = Set(batch)
            do {
                try await router.advertise(batch)
                // What went away meanwhile is withdrawn in the next round.
                advertised.formUnion(batch)
                removing.formUnion(batch.filter { wanted.keys[$0] == nil })
            } catch {
                tookAll = false
                metrics.failures.increment()
                refused.formUnion(batch.filter { wanted.keys[$0] != nil })
                logger.warning(
                    "keys cannot be advertised now", metadata: ["keys": "\(batch.count)", "error": "\(error)"])
            }
            offering = []
        }
        if !removing.isEmpty { wake.yield() }
        metrics.update(wanted, advertised: advertised)
        return tookAll
    }

    // MARK: Comparing

    /// Compares what is advertised with the store, whatever its events said, and corrects the difference.
    ///
    /// - Returns: how many keys were corrected.
    @discardableResult
    func reconcile() async -> Int {
        let began = changes
        let images: [StoredImage]
        do {
            images = try await store.images()
        } catch {
            // Nothing is known, so nothing is changed: what is advertised was true a moment ago.
            logger.warning("the store cannot be listed", metadata: ["error": "\(error)"])
            return 0
        }
        var present: [Digest: ContentInfo] = [:]
        for image in images {
            guard !Task.isCancelled else { return 0 }
            do {
                for info in try await store.contents(of: image) { present[info.digest] = info }
            } catch {
                logger.warning(
                    "an image cannot be looked at", metadata: ["image": "\(image.reference)", "error": "\(error)"])
                // Its content may well be there: what is advertised of it is looked at one by one below.
            }
        }
        // Content that no image leads to (yet), and content of images that could not be looked at.
        for key in advertised.union(adding).union(offering).union(refused) {
            guard let digest = try? Digest(parsing: key), present[digest] == nil else { continue }
            guard !Task.isCancelled else { return 0 }
            if let info = await info(digest) { present[digest] = info }
        }
        // Something happened meanwhile: what was read may be older than what the events said. Another time.
        guard changes == began, !wanted.isReceivingSnapshot, !Task.isCancelled else { return 0 }
        let pending = (adding: adding, removing: removing)
        wanted.replace(
            images: Dictionary(images.map { ($0.reference, $0) }, uniquingKeysWith: { $1 }), contents: present)
        gather()
        // Keys that neither the events nor the store know of.
        for key in advertised where wanted.keys[key] == nil { removing.insert(key) }
        adding.formUnion(Set(wanted.keys.keys).subtracting(advertised).subtracting(offering).subtracting(refused))
        // What merely waits to be taken was right before.
        let corrected = adding.subtracting(pending.adding).count + removing.subtracting(pending.removing).count
        if corrected > 0 {
            metrics.corrections.increment(by: corrected)
            logger.info("advertised keys corrected", metadata: ["keys": "\(corrected)"])
        }
        if !adding.isEmpty || !removing.isEmpty, await !flush() { retryLater(configuration.retryDelay) }
        return corrected
    }

    private func info(_ digest: Digest) async -> ContentInfo? {
        switch store.infoImmediately(digest) {
        case .found(let info): return info
        case .absent: return nil
        case .unknown:
            do {
                return try await store.info(digest)
            } catch {
                // Nothing is known of it, so nothing is changed.
                return wanted.info(digest)
            }
        }
    }

    private func log(_ event: ContentEvent, isSnapshot: Bool) {
        let (key, type): (String, String)
        switch event {
        case .imageSet(let image): (key, type) = (image.reference.taggedName ?? "\(image.reference)", "CREATE")
        case .imageRemoved(let reference): (key, type) = (reference.taggedName ?? "\(reference)", "DELETE")
        case .contentAdded(let info): (key, type) = ("\(info.digest)", "CREATE")
        case .contentRemoved(let digest): (key, type) = ("\(digest)", "DELETE")
        case .snapshotComplete:
            logger.info(
                "store listed",
                metadata: ["images": "\(wanted.storedImages.count)", "keys": "\(wanted.keys.count)"])
            return
        case .snapshotStarted: return
        }
        logger.info("OCI event", metadata: ["key": "\(key)", "type": "\(type)"])
    }
}
