import ContainerdContentStore
import ContentStore
import Logging
import MirrorServer
import ServiceLifecycle

/// How containerd is reached.
struct ContainerdOptions: Sendable {
    var socket = "/run/containerd/containerd.sock"
    var namespace = "k8s.io"
    var contentPath = ContainerdOptions.defaultContentPath
    var configurationFile = "/etc/containerd/config.toml"

    /// Where containerd keeps content unless its configuration says otherwise.
    static let defaultContentPath = "/var/lib/containerd/io.containerd.content.v1.content"
}

/// The store a daemon serves, and the service that runs it.
struct DaemonStore: Sendable {
    var content: any ContentStore
    var service: any Service
    /// Why the store is not ready; nil when it is.
    var problem: @Sendable () -> String?
    /// What was found to be wrong with the node's set-up.
    var findings = NodeFindings()

    /// Opens the store that was chosen.
    ///
    /// - Throws: ``StartFailure`` when it cannot be opened.
    static func open(
        _ choice: StoreChoice, containerd: ContainerdOptions, metrics: PrometheusRegistry, logger: Logger
    ) async throws -> DaemonStore {
        switch choice {
        case .containerd: try openContainerd(containerd, metrics: metrics, logger: logger)
        case .onDisk(let path): try await openLayout(path, logger: logger)
        }
    }

    private static func openLayout(_ path: String, logger: Logger) async throws -> DaemonStore {
        do {
            let store = try await OnDiskContentStore.open(path: path, options: .serving(path, logger: logger))
            return DaemonStore(content: store, service: store, problem: { nil })
        } catch let error as ContentStoreError {
            throw StartFailure("\(error)", hint: hint(for: error, path: path))
        }
    }

    /// containerd may come later or go away for a while: the store connects again and again, and readiness tells.
    private static func openContainerd(
        _ options: ContainerdOptions, metrics: PrometheusRegistry, logger: Logger
    ) throws -> DaemonStore {
        // The default path is left to containerd, which knows where it really is.
        let path = options.contentPath == ContainerdOptions.defaultContentPath ? nil : options.contentPath
        let store = ContainerdContentStore(
            configuration: ContainerdConfiguration(
                socketPath: options.socket, namespace: options.namespace, contentPath: path),
            metricsFactory: metrics, logger: logger)
        let findings = NodeFindings()
        return DaemonStore(
            content: store,
            service: ContainerdStoreService(store: store, options: options, findings: findings, logger: logger),
            problem: { store.health.isReady ? nil : "containerd has not been listed yet" }, findings: findings)
    }

    /// What an operator can do about a store that does not open.
    static func hint(for error: ContentStoreError, path: String) -> String? {
        switch error {
        case .notALayout: "make one with 'skopeo copy docker://IMAGE oci:\(path):IMAGE', or check the path"
        case .malformedIndex: "repair or remove the file; 'spegel verify \(path)' tells what else is wrong"
        case .permissionDenied: "run the daemon as a user who may read \(path), or change its permissions"
        default: nil
        }
    }
}
