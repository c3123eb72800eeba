import ContainerdTestKit
import Foundation
import Synchronization
import TestSupport

/// Nodes with a containerd and a daemon each, in namespaces of their own, and an upstream registry behind a slow relay that
/// counts.
final class Cluster: Sendable {
    struct Settings: Sendable {
        var nodes: Int
        var shape: LinkShape
        var upstreamBytesPerSecond: Int
        var upstreamDelay: Duration
        /// The size of the memory file system that each containerd has its content on.
        var storeBytes: Int
    }

    /// One pull and how it went.
    struct Pull: Sendable {
        var node: Int
        var duration: Duration
        /// What `ctr` said when it failed, the second time too.
        var failure: String?
        /// What `ctr` said when it failed and was run again.
        var firstFailure: String?
    }

    let settings: Settings
    let network: ClusterNetwork
    let upstream: HTTPRelay
    let stores: [ContainerdDaemon]
    let folder: TemporaryDirectory
    private let registry: DockerRegistry
    private let daemons: Mutex<[ChildProcess?]>
    private let relays: Mutex<[ChildProcess?]>
    /// The clients that pull now, by node.
    private let clients = Mutex<[Int: ChildProcess]>([:])
    private let starts = Mutex(0)

    static let upstreamPort = 5555
    static var upstreamHost: String { "\(ClusterNetwork.hubAddress):\(upstreamPort)" }
    /// A pull that takes longer counts as failed.
    static let pullLimit = Duration.seconds(600)

    static func start(_ settings: Settings) async throws -> Cluster {
        let network = try await ClusterNetwork.make(nodes: settings.nodes, shape: settings.shape)
        let registry = try DockerRegistry()
        let upstream = try HTTPRelay(
            host: ClusterNetwork.hubAddress, port: upstreamPort, upstreamPort: registry.port,
            bytesPerSecond: settings.upstreamBytesPerSecond, delay: settings.upstreamDelay)
        var options = ContainerdDaemon.Options()
        // As in a node: what a failed pull leaves behind stays for a while.
        options.collectsByDefault = true
        let mount = try Tool.find("mount", package: "mount")
        var stores: [ContainerdDaemon] = []
        for _ in 0..<settings.nodes {
            let store = try ContainerdDaemon(options)
            let root = "\(store.path)/root"
            try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
            // In the mount namespace of this process; a full disk concerns one node only.
            _ = try Tool.run(mount, ["-t", "tmpfs", "-o", "size=\(settings.storeBytes)", "node", root])
            try await store.start()
            stores.append(store)
        }
        return try Cluster(settings, network, registry, upstream, stores)
    }

    private init(
        _ settings: Settings, _ network: ClusterNetwork, _ registry: DockerRegistry, _ upstream: HTTPRelay,
        _ stores: [ContainerdDaemon]
    ) throws {
        self.settings = settings
        self.network = network
        self.registry = registry
        self.upstream = upstream
        self.stores = stores
        folder = try TemporaryDirectory(inMemory: true)
        daemons = Mutex(Array(repeating: nil, count: settings.nodes))
        relays = Mutex(Array(repeating: nil, count: settings.nodes))
        for (name, mirror) in [
            ("direct", ""),
            ("mirrored", "[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n"),
        ] {
            let directory = "\(folder.path)/\(name)/\(Self.upstreamHost)"
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            try "server = \"http://\(Self.upstreamHost)\"\n\(mirror)".write(
                toFile: "\(directory)/hosts.toml", atomically: true, encoding: .utf8)
        }
    }

    /// Ends everything.
    func close() async throws {
        await stopDaemons()
        let unmount = try Tool.find("umount", package: "mount")
        for store in stores {
            try await store.stop(SIGKILL)
            _ = try? Tool.run(unmount, ["-l", "\(store.path)/root"])
        }
        registry.stop()
        try await network.remove()
    }

    // MARK: Daemons

    /// The daemon of a node, unless it was stopped.
    func daemon(_ node: Int) -> ChildProcess? { daemons.withLock { $0[node] } }

    /// Starts a daemon.
    ///
    /// - Parameters:
    ///   - lying: whether a relay has its place, which does wrong as ``setFault(_:of:)`` says.
    ///   - options: further arguments.
    func startDaemon(_ program: String, node: Int, lying: Bool = false, options: [String] = []) async throws {
        let number = starts.withLock { starts in
            starts += 1
            return starts
        }
        let (store, address) = (stores[node], ClusterNetwork.address(node))
        let port = lying ? 5100 : 5000
        let daemon = try await ChildProcess.start(
            network.wrapper(node) + [
                program, "registry", "--registry-addr", ":\(port)", "--router-addr", ":5001", "--metrics-addr", ":9090",
                "--containerd-sock", store.socketPath, "--containerd-namespace", "k8s.io",
                "--containerd-content-path", store.contentPath, "--bootstrap-kind", "http",
                "--http-bootstrap-addr", "\(address):5002",
                // A node that starts again finds any of the others; the first one is never replaced.
                "--http-bootstrap-url", "http://\(ClusterNetwork.address(0)):5002/id",
            ] + options, output: (folder.path, "daemon\(node).\(number)"))
        daemons.withLock { $0[node] = daemon }
        guard lying else { return }
        let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path
        let relay = try await ChildProcess.start(
            network.wrapper(node) + [own, "lying-relay", "--port", "5000", "--upstream-port", "\(port)"],
            input: .pipe, output: (folder.path, "relay\(node).\(number)"))
        relays.withLock { $0[node] = relay }
        _ = try await eventually("the relay of node \(node)") { () -> Bool? in
            guard relay.isRunning else { throw BenchmarkError("the relay of node \(node) ended\n\(relay.errors)") }
            return relay.output.contains("listening") ? true : nil
        }
    }

    /// Starts a daemon on each node and waits until all are ready.
    ///
    /// - Parameters:
    ///   - program: of a node.
    ///   - lying: nodes with a relay before their daemon.
    ///   - options: further arguments of a node.
    func startDaemons(
        lying: Set<Int> = [], options: (Int) -> [String] = { _ in [] }, _ program: (Int) -> String
    ) async throws {
        for node in stores.indices {
            try await startDaemon(
                program(node), node: node, lying: lying.contains(node), options: options(node))
        }
        for node in stores.indices { try await waitUntilReady(node) }
    }

    /// A program without `/readyz` is given five seconds from the time at which it listens.
    func waitUntilReady(_ node: Int) async throws {
        let begin = ContinuousClock.now
        _ = try await eventually("node \(node) is ready", detail: { self.log(node) }) { () -> Bool? in
            guard let status = try? Self.status(node, "/readyz") else {
                guard self.daemon(node)?.isRunning == true else {
                    throw BenchmarkError("the daemon of node \(node) has ended\n\(self.log(node))")
                }
                return nil
            }
            return status == 200 || (status == 404 && begin.duration(to: .now) > .seconds(5)) ? true : nil
        }
    }

    /// The end of what the daemon logged.
    func log(_ node: Int) -> String { String((daemon(node)?.errors ?? "").suffix(3000)) }

    func setFault(_ fault: HTTPRelay.Fault, of node: Int) {
        relays.withLock { $0[node] }?.write(line: fault.rawValue)
    }

    /// Ends a daemon and waits for its end.
    func stopDaemon(_ node: Int, _ signal: Int32 = SIGTERM) async throws {
        let relay = relays.withLock { relays in
            defer { relays[node] = nil }
            return relays[node]
        }
        relay?.send(SIGKILL)
        guard
            let daemon = daemons.withLock({ daemons -> ChildProcess? in
                defer { daemons[node] = nil }
                return daemons[node]
            })
        else { return }
        daemon.send(SIGCONT)
        daemon.send(signal)
        _ = try await daemon.wait()
    }

    /// Ends all daemons at once.
    func stopDaemons() async {
        await withTaskGroup(of: Void.self) { group in
            for node in stores.indices {
                group.addTask { try? await self.stopDaemon(node, SIGKILL) }
            }
        }
    }

    // MARK: Content

    /// Puts an image into the upstream registry.
    func push(_ image: ClusterImage) throws {
        let skopeo = try Tool.find("skopeo", package: "skopeo")
        _ = try Tool.run(
            skopeo,
            [
                "--insecure-policy", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", "--quiet",
                "oci:\(image.directory):\(image.tag)",
                "docker://127.0.0.1:\(registry.port)/\(ClusterImage.repository):\(image.tag)",
            ])
    }

    func name(_ image: ClusterImage) -> String { Self.name(tag: image.tag) }
    static func name(tag: String) -> String { "\(upstreamHost)/\(ClusterImage.repository):\(tag)" }

    /// Gives an image to some nodes without the network, a few at a time.
    func give(_ image: ClusterImage, to nodes: [Int]) async throws {
        for group in stride(from: 0, to: nodes.count, by: 4).map({ nodes[$0..<min($0 + 4, nodes.count)] }) {
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                for node in group {
                    tasks.addTask {
                        try await self.stores[node].ctr(
                            "images", "import", "--all-platforms", "--no-unpack", image.archive)
                    }
                }
                try await tasks.waitForAll()
            }
        }
    }

    /// Waits until a node that does not have an image would get all of it from others.
    func waitUntilFound(_ image: ClusterImage, by node: Int) async throws {
        let repository = ClusterImage.repository
        let paths =
            ["manifests/\(image.tag)", "manifests/\(image.index)", "manifests/\(image.manifest)"]
            + image.blobs.map { "blobs/\($0.digest)" }
        for path in paths {
            _ = try await eventually("node \(node) finds \(path)", detail: { self.log(node) }) {
                let status = try? Self.status(
                    node, "/v2/\(repository)/\(path)?ns=\(Self.upstreamHost)", method: "HEAD")
                return status == 200 ? true : nil
            }
        }
    }

    /// Pulls an image on a node, and once again when that fails, as a kubelet does.
    func pull(_ image: ClusterImage, on node: Int, mirrored: Bool = true) async -> Pull {
        let first = await pullOnce(image, on: node, mirrored: mirrored)
        guard let failure = first.failure else { return first }
        // A kubelet tries again when containerd is there again.
        _ = try? await eventually("containerd of node \(node)") {
            try? await Command.check(self.stores[node].ctrCommand() + ["version"])
        }
        var second = await pullOnce(image, on: node, mirrored: mirrored)
        second.duration += first.duration
        second.firstFailure = failure
        return second
    }

    /// Pulls an image on a node with `ctr`.
    func pullOnce(_ image: ClusterImage, on node: Int, mirrored: Bool = true) async -> Pull {
        let begin = ContinuousClock.now
        let store = stores[node]
        let number = starts.withLock { starts in
            starts += 1
            return starts
        }
        do {
            let program = try await ChildProcess.start(
                network.wrapper(node) + store.ctrCommand() + [
                    "content", "fetch", "--plain-http", "--hosts-dir",
                    "\(folder.path)/\(mirrored ? "mirrored" : "direct")", name(image),
                ], output: (folder.path, "pull\(node).\(number)"))
            clients.withLock { $0[node] = program }
            defer { clients.withLock { $0[node] = nil } }
            defer { for end in ["out", "err"] { unlink("\(folder.path)/pull\(node).\(number).\(end)") } }
            while program.isRunning, begin.duration(to: .now) < Self.pullLimit {
                try await Task.sleep(for: .milliseconds(5))
            }
            let duration = begin.duration(to: .now)
            guard !program.isRunning else {
                program.send(SIGKILL)
                return Pull(node: node, duration: duration, failure: "no end after \(Self.pullLimit)")
            }
            let status = try await program.wait()
            let failure = status == .exited(0) ? nil : String(program.errors.suffix(600))
            return Pull(node: node, duration: duration, failure: failure)
        } catch {
            return Pull(node: node, duration: begin.duration(to: .now), failure: "\(error)")
        }
    }

    /// Pulls an image on some nodes at once.
    func pull(_ image: ClusterImage, on nodes: [Int], mirrored: Bool = true) async -> [Pull] {
        await withTaskGroup(of: Pull.self) { group in
            for node in nodes { group.addTask { await self.pull(image, on: node, mirrored: mirrored) } }
            var pulls: [Pull] = []
            for await pull in group { pulls.append(pull) }
            return pulls
        }
    }

    /// Kills the client that pulls on a node; false when none does.
    func killClient(of node: Int) -> Bool {
        guard let client = clients.withLock({ $0[node] }), client.isRunning else { return false }
        client.send(SIGKILL)
        return true
    }

    /// The value of a metric of a node, of all its labels together; nil when the node does not say.
    func metric(_ name: String, of node: Int) throws -> Double? {
        let page = try RawResponse.get(
            host: ClusterNetwork.address(node), port: 9090, path: "/metrics", limit: 4 << 20
        ).body
        let values = String(decoding: page, as: UTF8.self).split(separator: "\n")
            .filter { $0.hasPrefix(name + " ") || $0.hasPrefix(name + "{") }
            .compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }
        return values.isEmpty ? nil : values.reduce(0, +)
    }

    /// The bytes of an image's blobs that a node has so far, in whole blobs and unfinished ones.
    func receivedBytes(_ image: ClusterImage, on node: Int) -> Int {
        let path = stores[node].contentPath
        func size(_ file: String) -> Int {
            var information = stat()
            return stat(file, &information) == 0 ? Int(information.st_size) : 0
        }
        let whole = image.blobs.filter { access("\(path)/blobs/sha256/\($0.digest.hex)", F_OK) == 0 }.map(\.bytes)
        let ingests = (try? FileManager.default.contentsOfDirectory(atPath: "\(path)/ingest")) ?? []
        return whole.reduce(0, +) + ingests.map { size("\(path)/ingest/\($0)/data") }.reduce(0, +)
    }

    /// Removes an image from all nodes.
    func forget(_ image: ClusterImage) async {
        await withTaskGroup(of: Void.self) { group in
            for store in stores {
                group.addTask { _ = try? await store.ctr("images", "rm", "--sync", self.name(image)) }
            }
        }
    }

    /// One request of this process to a node's registry, without a body in its answer.
    private static func status(_ node: Int, _ path: String, method: String = "GET") throws -> Int {
        let client = try ClientSocket(host: ClusterNetwork.address(node), port: 5000, timeoutSeconds: 10)
        return try client.head(path, method: method)
    }
}
