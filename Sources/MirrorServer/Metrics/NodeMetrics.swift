import HTTPServer
import Metrics
import PeerRoutingCore
import PrometheusMetrics

/// The metrics of a node as a whole: process, readiness and router. They are brought up to date when a page is read.
enum NodeMetrics {
    /// Registers them, if the metrics are a `PrometheusRegistry`.
    static func register(_ configuration: MirrorNode.Configuration, coldStart: ColdStart?) {
        guard let registry = configuration.metrics as? PrometheusRegistry else { return }
        ProcessMetrics.register(in: registry)
        let (router, storeProblem) = (configuration.router, configuration.storeProblem)
        registry.gauge("spegel_ready") { storeProblem() == nil && router?.isReady ?? true ? 1 : 0 }
        if let coldStart { registry.gauge("spegel_cold_start_contents") { Double(coldStart.contents) } }
        guard let router else { return }
        let gauges = RouterGauges(factory: registry)
        registry.addCollector { gauges.set(await router.statistics()) }
    }

    private struct RouterGauges: Sendable {
        let knownPeers: Meter
        let connectedPeers: Meter
        let ownRecords: Meter
        let keptRecords: Meter

        init(factory: any MetricsFactory) {
            knownPeers = Meter(label: "spegel_router_known_peers", factory: factory)
            connectedPeers = Meter(label: "spegel_router_connected_peers", factory: factory)
            ownRecords = Meter(label: "spegel_router_own_records", factory: factory)
            keptRecords = Meter(label: "spegel_router_kept_records", factory: factory)
            set(RouterStatistics())
        }

        func set(_ statistics: RouterStatistics) {
            knownPeers.set(statistics.knownPeers)
            connectedPeers.set(statistics.connectedPeers)
            ownRecords.set(statistics.ownRecords)
            keptRecords.set(statistics.keptRecords)
        }
    }
}
