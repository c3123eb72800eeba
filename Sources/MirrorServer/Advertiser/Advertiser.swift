import ContentStore
import HTTPServer
import Logging
import Metrics
import NIOConcurrencyHelpers
import OCIDistribution
import PeerRoutingCore
import ServiceLifecycle

/// How a node advertises its content, with the bounds.
public struct AdvertiserConfiguration: Sendable {
    /// Most keys given to the router at once.
    public var batchKeys = 512
    /// How long changes are gathered before they are given to the router.
    public var batchDelay: Duration = .milliseconds(50)
    /// How often what is advertised is compared with what is present.
    public var reconcileInterval: Duration = .seconds(300)
    /// How long to wait after the router refused keys before they are offered again. Doubles up to
    /// ``reconcileInterval``.
    public var retryDelay: Duration = .seconds(1)

    /// The defaults.
    public init() {}
}

/// Advertises what the store holds: everything at the start, then every change, and from time to time the difference
/// between what is advertised and what is present.
///
/// A damaged image, or content that cannot be examined, is logged and left out; the others are advertised. Keeps the
/// contract of ``Lifecycle``; ends by itself when the store is closed.
package final class Advertiser: Service, Sendable {
    private let core: AdvertiserCore
    private let store: any ContentStore
    private let configuration: AdvertiserConfiguration
    private let lifecycle = Lifecycle(name: "advertiser")
    private let work = NIOLockedValueBox<Task<Void, Never>?>(nil)

    /// An advertiser that does not run yet.
    ///
    /// - Parameters:
    ///   - store: whose content is advertised.
    ///   - router: where it is advertised.
    ///   - filter: which references are advertised: those that are served.
    ///   - metricsFactory: receives the metrics; nil for the one the process was given.
    package convenience init(
        configuration: AdvertiserConfiguration = AdvertiserConfiguration(), store: any ContentStore,
        router: any PeerRouter, filter: ReferenceFilter = .all, metricsFactory: (any MetricsFactory)? = nil,
        logger: Logger
    ) {
        self.init(
            configuration: configuration, store: store, router: router, filter: filter,
            metricsFactory: metricsFactory, registries: RegistryLabels(), logger: logger)
    }

    init(
        configuration: AdvertiserConfiguration = AdvertiserConfiguration(), store: any ContentStore,
        router: any PeerRouter, filter: ReferenceFilter = .all, metricsFactory: (any MetricsFactory)? = nil,
        registries: RegistryLabels, logger: Logger
    ) {
        self.store = store
        self.configuration = configuration
        core = AdvertiserCore(
            configuration: configuration, store: store, router: router, filter: filter,
            metrics: AdvertiserMetrics(
                factory: metricsFactory ?? MetricsSystem.factory, registries: registries), logger: logger)
    }

    /// Begins to follow the store; returns at once.
    ///
    /// - Throws: ``LifecycleError``.
    package func start() async throws {
        try await lifecycle.start {
            let work = Task { await followStore() }
            self.work.withLockedValue { $0 = work }
            let lifecycle = self.lifecycle
            Task {
                await work.value
                await lifecycle.end {}
            }
        }
    }

    /// Stops following the store. What is advertised stays so until the router is shut down.
    package func shutdown() async {
        await lifecycle.end {
            let work = self.work.withLockedValue { $0 }
            work?.cancel()
            await work?.value
        }
    }

    /// Runs until the task is cancelled, the service group shuts down gracefully, or the store is closed.
    package func run() async throws {
        try await lifecycle.run {
            try await start()
        } shutdown: { _ in
            await shutdown()
        }
    }

    private func followStore() async {
        await withTaskGroup(of: Void.self) { [core, store, configuration] group in
            group.addTask {
                for await event in store.events() {
                    await core.apply(event)
                }
                await core.flushAll()
            }
            group.addTask {
                while !Task.isCancelled {
                    try? await Task.sleep(for: configuration.reconcileInterval)
                    guard !Task.isCancelled else { return }
                    await core.reconcile()
                }
            }
            group.addTask { await core.flushLoop() }
            await group.next()
            group.cancelAll()
        }
    }

    /// Compares what is advertised with what is present now, and corrects the difference.
    ///
    /// - Returns: how many keys were corrected.
    @discardableResult
    package func reconcile() async -> Int { await core.reconcile() }

    /// The keys that are advertised now.
    package var advertisedKeys: Set<String> {
        get async { await core.advertised }
    }

    /// The store's content, by the events so far.
    package var storeSummary: StoreEventLog.Summary {
        get async { await core.storeSummary }
    }
}
