#if Containerd
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
#endif
