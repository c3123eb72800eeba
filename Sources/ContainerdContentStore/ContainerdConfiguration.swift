import Metrics

/// How a ``ContainerdContentStore`` reaches containerd, and its limits.
public struct ContainerdConfiguration: Sendable {
    /// containerd's Unix domain socket; at most 107 bytes.
    public var socketPath = "/run/containerd/containerd.sock"
    /// The namespace whose images and content the store shows; Kubernetes uses `k8s.io`.
    public var namespace = "k8s.io"
    /// The directory that has containerd's `blobs` directory; `nil` to ask containerd for it.
    public var contentPath: String?
    /// How often everything is listed anew, in case that a change was not told. Half of it at least is waited.
    public var reconciliationInterval: Duration = .seconds(120)
    /// How long the first wait before another attempt to connect is; it doubles with each failure.
    public var initialBackoff: Duration = .milliseconds(50)
    /// The longest wait between two attempts to connect.
    public var maximumBackoff: Duration = .seconds(1)
    /// How long a call that containerd answers at once may take before the connection is given up.
    public var callTimeout: Duration = .seconds(15)
    /// How many changes are kept for a subscriber that is slow before it gets a new snapshot instead.
    public var eventBufferLimit = 4096
    /// How many bytes of manifests that were asked for are kept in memory.
    public var manifestCacheCapacity = 8 << 20
    /// How many writers may be at work at once.
    public var writerLimit = 64

    /// The defaults, as on a Kubernetes node.
    public init() {}

    /// Reaches a containerd that is not where it usually is.
    public init(socketPath: String, namespace: String = "k8s.io", contentPath: String? = nil) {
        self.socketPath = socketPath
        self.namespace = namespace
        self.contentPath = contentPath
    }
}

/// The state of a ``ContainerdContentStore``, for readiness, metrics and people.
public struct ContainerdHealth: Sendable, Hashable {
    /// The connection to containerd.
    public enum Connection: Sendable, Hashable {
        /// No attempt has ended yet.
        case connecting
        /// Connected to containerd of this version.
        case connected(version: String)
        /// Not connected; says why and what to do. Content that is known goes on being served from disk.
        case disconnected(reason: String)
    }

    /// The connection now.
    public var connection: Connection = .connecting
    /// Whether everything in containerd was listed once. Before, lookups ask containerd.
    public var isIndexed = false
    /// How bytes are read; `nil` before the first connection.
    public var access: BlobAccess?
    /// How many connections ended, each followed by attempts to make another.
    public var lostConnections = 0
    /// How many times everything was listed.
    public var reconciliations = 0
    /// How many images are known by a full name.
    public var images = 0
    /// How many pieces of content are present.
    public var contents = 0
    /// The sum of their sizes in bytes.
    public var contentBytes: Int64 = 0
    /// What is wrong though connected, such as a namespace that does not exist. Empty when all is well.
    public var problems: [String] = []

    /// Whether the store knows what containerd has and hears of changes.
    public var isReady: Bool {
        if case .connected = connection { isIndexed } else { false }
    }

    /// One line that says why the store is not ready; `nil` when it is.
    public var explanation: String? {
        switch connection {
        case .connecting: "connecting to containerd"
        case .disconnected(let reason): reason
        case .connected: isIndexed ? nil : "listing what containerd has"
        }
    }
}

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
