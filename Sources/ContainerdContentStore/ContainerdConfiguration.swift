import Metrics

/// How a ``ContainerdContentStore`` reaches containerd, and its limits.
public struct ContainerdConfiguration: Sendable {
    /// containerd's Unix domain socket; at most 107 bytes.
    public var socketPath = "/run/containerd/containerd.sock"
    /// The namespace whose images and content the store shows; Kubernetes uses `k8s.io`.
    public var namespace = "k8s.io"
    /// The directory that has containerd's `blobs` directory; `nil` for the one that containerd reports.
    public var contentPath: String?
    /// The interval of complete listings, which find changes that were not reported; each wait is half to all of it.
    public var reconciliationInterval: Duration = .seconds(120)
    /// The first wait before another attempt to connect; it doubles with each failure.
    public var initialBackoff: Duration = .milliseconds(50)
    /// The longest wait between two attempts to connect.
    public var maximumBackoff: Duration = .seconds(1)
    /// The timeout of a call; the connection is closed then.
    public var callTimeout: Duration = .seconds(15)
    /// Most events that are kept for a slow subscriber; beyond it a new snapshot replaces them.
    public var eventBufferLimit = 4096
    /// The size of the cache of manifests in bytes.
    public var manifestCacheCapacity = 8 << 20
    /// Most writers at the same time.
    public var writerLimit = 64

    /// The defaults, as on a Kubernetes node.
    public init() {}

    /// Sets where containerd is.
    public init(socketPath: String, namespace: String = "k8s.io", contentPath: String? = nil) {
        self.socketPath = socketPath
        self.namespace = namespace
        self.contentPath = contentPath
    }
}

/// The state of a ``ContainerdContentStore``, for readiness, metrics and status pages.
public struct ContainerdHealth: Sendable, Hashable {
    /// The connection to containerd.
    public enum Connection: Sendable, Hashable {
        /// No attempt has ended yet.
        case connecting
        /// Connected to containerd of this version.
        case connected(version: String)
        /// Not connected, with the reason and what to do. Known content is served from disk nevertheless.
        case disconnected(reason: String)
    }

    /// The connection now.
    public var connection: Connection = .connecting
    /// Whether everything in containerd was listed once. Before, lookups call containerd.
    public var isIndexed = false
    /// How bytes are read; `nil` before the first connection.
    public var access: BlobAccess?
    /// The number of connections that ended.
    public var lostConnections = 0
    /// The number of complete listings.
    public var reconciliations = 0
    /// How many images are known by a full name.
    public var images = 0
    /// How many pieces of content are present.
    public var contents = 0
    /// The sum of their sizes in bytes.
    public var contentBytes: Int64 = 0
    /// Problems in spite of a connection, such as a namespace that does not exist.
    public var problems: [String] = []

    /// Whether the index is complete and changes are reported.
    public var isReady: Bool {
        if case .connected = connection { isIndexed } else { false }
    }

    /// Why the store is not ready, in one line; `nil` when it is.
    public var explanation: String? {
        switch connection {
        case .connecting: "connecting to containerd"
        case .disconnected(let reason): reason
        case .connected: isIndexed ? nil : "listing what containerd has"
        }
    }
}

/// The metrics of the store.
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
