#if Containerd
    import Metrics

    /// What an operator sees of the store in the daemon's metrics.
    struct ContainerdMetrics: Sendable {
        private let connected: Gauge
        private let lostConnections: Gauge
        private let reconciliations: Gauge
        private let indexed: Gauge
        private let directFiles: Gauge
        private let images: Gauge
        private let contents: Gauge
        private let bytes: Gauge

        init(factory: any MetricsFactory) {
            connected = Gauge(label: "spegel_containerd_connected", factory: factory)
            lostConnections = Gauge(label: "spegel_containerd_lost_connections", factory: factory)
            reconciliations = Gauge(label: "spegel_containerd_reconciliations", factory: factory)
            indexed = Gauge(label: "spegel_containerd_indexed", factory: factory)
            directFiles = Gauge(label: "spegel_containerd_content_path_readable", factory: factory)
            images = Gauge(label: "spegel_containerd_images", factory: factory)
            contents = Gauge(label: "spegel_containerd_contents", factory: factory)
            bytes = Gauge(label: "spegel_containerd_content_bytes", factory: factory)
        }

        func record(_ health: ContainerdHealth) {
            if case .connected = health.connection { connected.record(1) } else { connected.record(0) }
            if case .files = health.access { directFiles.record(1) } else { directFiles.record(0) }
            lostConnections.record(health.lostConnections)
            reconciliations.record(health.reconciliations)
            indexed.record(health.isIndexed ? 1 : 0)
            images.record(health.images)
            contents.record(health.contents)
            bytes.record(Double(health.contentBytes))
        }
    }
#endif
