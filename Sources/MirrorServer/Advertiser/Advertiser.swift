import ContentStore
import Logging
import Metrics
import OCIDistribution
import PeerRouting
import ServiceLifecycle

/// Tells the router what the store holds: everything at the start, then every change, and from time to time the
/// difference between what is advertised and what is really there.
///
/// One damaged image, or content that cannot be looked at, is logged and left out; it hides nothing else.
public final class Advertiser: Service, Sendable {
    private let core: AdvertiserCore
    private let store: any ContentStore
    private let configuration: AdvertiserConfiguration

    /// An advertiser that does not run yet.
    ///
    /// - Parameters:
    ///   - store: whose content is advertised.
    ///   - router: told of it.
    ///   - metricsFactory: receives the metrics; nil for the one the process was given.
    public init(
        configuration: AdvertiserConfiguration = AdvertiserConfiguration(), store: any ContentStore,
        router: any PeerRouter, metricsFactory: (any MetricsFactory)? = nil, logger: Logger
    ) {
        self.store = store
        self.configuration = configuration
        core = AdvertiserCore(
            configuration: configuration, store: store, router: router,
            metrics: AdvertiserMetrics(factory: metricsFactory ?? MetricsSystem.factory), logger: logger)
    }

    /// Runs until the task is cancelled, the service group shuts down gracefully, or the store is closed.
    public func run() async throws {
        await cancelWhenGracefulShutdown { [core, store, configuration] in
            await withTaskGroup(of: Void.self) { group in
                group.addTask {
                    for await event in store.events() {
                        await core.take(event)
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
    }

    /// Compares what is advertised with what is present now, and corrects the difference.
    ///
    /// - Returns: how many keys were corrected.
    @discardableResult
    public func reconcile() async -> Int { await core.reconcile() }

    /// The keys that are advertised now.
    public var advertisedKeys: Set<String> {
        get async { await core.advertised }
    }
}
