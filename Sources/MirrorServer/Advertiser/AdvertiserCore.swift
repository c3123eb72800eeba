import ContentStore
import Logging
import Metrics
import OCIDistribution
import PeerRoutingCore

/// The advertiser's state: the keys to advertise, those the router has accepted, and those it has still to be given.
actor AdvertiserCore {
    private let configuration: AdvertiserConfiguration
    private let store: any ContentStore
    private let router: any PeerRouter
    private let logger: Logger
    private var metrics: AdvertiserMetrics
    private var wanted: AdvertisedSet
    /// Keys that the router has accepted.
    private(set) var advertised: Set<String> = []
    private var adding: Set<String> = []
    /// Keys of the call to the router that is under way: no longer to be added, and not yet accepted.
    private var inFlight: Set<String> = []
    private var removing: Set<String> = []
    /// Keys that the router did not accept; they are retried after a while.
    private var refused: Set<String> = []
    private var wake: AsyncStream<Void>.Continuation
    private let wakeups: AsyncStream<Void>
    private var isFlushing = false
    /// Waits to retry what the router refused.
    private var retry: Task<Void, Never>?
    /// Counts events, so that a comparison with the store detects events in the meantime.
    private var changes = 0
    private var eventLog: StoreEventLog

    init(
        configuration: AdvertiserConfiguration, store: any ContentStore, router: any PeerRouter,
        filter: ReferenceFilter, metrics: AdvertiserMetrics, logger: Logger
    ) {
        self.configuration = configuration
        self.store = store
        self.router = router
        self.metrics = metrics
        self.logger = logger
        eventLog = StoreEventLog(logger: logger)
        wanted = AdvertisedSet(filter: filter)
        (wakeups, wake) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// The store's content, by the events so far.
    var storeSummary: StoreEventLog.Summary { eventLog.summary }

    /// Applies a change of the store. The router is given the difference within the batch delay.
    func apply(_ event: ContentEvent) {
        eventLog.record(event)
        wanted.apply(event)
        changes += 1
        guard !wanted.isReceivingSnapshot else { return }
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
        // Also when no key was added or removed: the counts may have changed.
        wake.yield()
    }

    /// Gives the gathered changes to the router until cancelled.
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

    /// Retries what was refused. Meanwhile changes are given to the router as before: withdrawn keys may make room.
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

    /// - Returns: whether the router accepted everything.
    private func flush() async -> Bool {
        // The call under way gives the router what was added meanwhile, too.
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
        var acceptedAll = true
        while !adding.isEmpty {
            let batch = Array(adding.prefix(size))
            adding.subtract(batch)
            inFlight = Set(batch)
            do {
                try await router.advertise(batch)
                // What was removed meanwhile is withdrawn in the next round.
                advertised.formUnion(batch)
                removing.formUnion(batch.filter { wanted.keys[$0] == nil })
            } catch {
                acceptedAll = false
                metrics.failures.increment()
                refused.formUnion(batch.filter { wanted.keys[$0] != nil })
                logger.warning(
                    "keys cannot be advertised now", metadata: ["keys": "\(batch.count)", "error": "\(error)"])
            }
            inFlight = []
        }
        if !removing.isEmpty { wake.yield() }
        metrics.update(wanted, advertised: advertised)
        return acceptedAll
    }

    // MARK: Comparing

    /// Compares what is advertised with what the store answers, independent of its events, and corrects the difference.
    ///
    /// - Returns: how many keys were corrected.
    @discardableResult
    func reconcile() async -> Int {
        let began = changes
        let images: [StoredImage]
        do {
            images = try await store.images()
        } catch {
            // Nothing is known, so nothing is changed.
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
                    "an image cannot be examined", metadata: ["image": "\(image.reference)", "error": "\(error)"])
                // Its content may be present: what is advertised of it is examined key by key below.
            }
        }
        // Content that no image leads to (yet), and content of images that could not be examined.
        for key in advertised.union(adding).union(inFlight).union(refused) {
            guard let digest = try? Digest(parsing: key), present[digest] == nil else { continue }
            guard !Task.isCancelled else { return 0 }
            if let info = await info(digest) { present[digest] = info }
        }
        // An event came meanwhile: what was read may be older than that. The next round compares again.
        guard changes == began, !wanted.isReceivingSnapshot, !Task.isCancelled else { return 0 }
        let pending = (adding: adding, removing: removing)
        wanted.replace(
            images: Dictionary(images.map { ($0.reference, $0) }, uniquingKeysWith: { $1 }), contents: present)
        gather()
        // Keys that neither the events nor the store has.
        for key in advertised where wanted.keys[key] == nil { removing.insert(key) }
        adding.formUnion(Set(wanted.keys.keys).subtracting(advertised).subtracting(inFlight).subtracting(refused))
        // What only waits for the router was right before.
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
}

/// The gauges of what is advertised, by registry: see ``RegistryLabels``.
struct AdvertiserMetrics: Sendable {
    private static let names = [
        "spegel_advertised_images", "spegel_advertised_image_tags", "spegel_advertised_image_digests",
        "spegel_advertised_content_digests", "spegel_advertised_keys",
    ]

    private let factory: any MetricsFactory
    private let registries: RegistryLabels
    private var gauges: [String: [Meter]] = [:]
    let failures: Counter
    let corrections: Counter

    init(factory: any MetricsFactory, registries: RegistryLabels = RegistryLabels()) {
        self.factory = factory
        self.registries = registries
        failures = Counter(label: "spegel_advertise_failures_total", factory: factory)
        corrections = Counter(label: "spegel_advertise_corrections_total", factory: factory)
        for label in registries.labels { gauges[label] = meters(label) }
    }

    /// Counts what is advertised.
    mutating func update(_ set: AdvertisedSet, advertised: Set<String>) {
        var counts: [String: [Int]] = [:]
        func count(_ registry: String, _ index: Int) { counts[registry, default: [0, 0, 0, 0, 0]][index] += 1 }
        for (key, value) in set.keys where advertised.contains(key) {
            if value.isTag {
                count(value.registry, 1)
            } else {
                count(value.registry, 3)
                if value.isImage { count(value.registry, 2) }
            }
            count(value.registry, 4)
        }
        for image in set.storedImages where advertised.contains(image.target.digest.description) {
            count(image.reference.registry, 0)
        }
        registries.addKnown(counts.keys.sorted())
        var byLabel: [String: [Int]] = [:]
        for (registry, values) in counts {
            let label = registries.label(for: registry)
            if gauges[label] == nil { gauges[label] = meters(label) }
            byLabel[label] = zip(byLabel[label] ?? [0, 0, 0, 0, 0], values).map(+)
        }
        for (label, meters) in gauges {
            for (meter, value) in zip(meters, byLabel[label] ?? [0, 0, 0, 0, 0]) { meter.set(value) }
        }
    }

    private func meters(_ label: String) -> [Meter] {
        Self.names.map { Meter(label: $0, dimensions: [("registry", label)], factory: factory) }
    }
}
