#if Containerd
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
#endif
