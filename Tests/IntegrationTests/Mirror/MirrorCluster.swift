import Foundation
import MirrorServer
import OCIDistribution
import Synchronization
import TestSupport

/// Daemons that find each other: a node with nothing, which bootstraps the others, and providers that can be killed and
/// started again. All serve on the same port, each on an address of its own.
final class MirrorCluster: Sendable {
    /// A node that has an image, with a name of its own for it at each start.
    struct Provider: Sendable {
        let address: String
        let layout: TestLayout
    }

    let node: ChildProcess
    let address: String
    let port: Int
    let providers: [Provider]
    private let bootstrap: String
    private let directory: TemporaryDirectory
    private let running = Mutex<[Int: ChildProcess]>([:])
    /// Providers that were killed, and perhaps have not gone yet.
    private let killed = Mutex<[Int: ChildProcess]>([:])
    private let starts = Mutex(0)

    /// How often something random is tried: a hundred times in full, else as stated, unless it is set.
    static func rounds(_ few: Int) -> Int {
        ProcessInfo.processInfo.environment["SPEGEL_TEST_ROUNDS"].flatMap { Int($0) }
            ?? (Project.isFullScale ? 100 : few)
    }

    /// Starts the node and the providers, each with a copy of the layout, and waits until the node finds each of them.
    static func start(_ layout: TestLayout, providers count: Int) async throws -> MirrorCluster {
        let directory = try TemporaryDirectory("m")
        let address = LoopbackAddress.next()
        let port = try LoopbackAddress.freePort(on: address)
        let bootstrapPort = try LoopbackAddress.freePort(on: address)
        let bootstrap = "\(address):\(bootstrapPort)"
        let empty = directory.path("empty")
        try directory.write(#"{"imageLayoutVersion":"1.0.0"}"#, to: "empty/oci-layout")
        try directory.write(#"{"schemaVersion":2,"manifests":[]}"#, to: "empty/index.json")
        try FileManager.default.createDirectory(
            atPath: "\(empty)/blobs/sha256", withIntermediateDirectories: true)
        var providers: [Provider] = []
        for number in 0..<count {
            let path = directory.path("provider\(number)")
            try await Command.check("cp", "-r", layout.path, path)
            providers.append(Provider(address: LoopbackAddress.next(), layout: TestLayout(path: path)))
        }
        let node = try await ChildProcess.start(
            arguments(address, port, empty, bootstrap) + ["--http-bootstrap-addr", bootstrap])
        let cluster = MirrorCluster(
            node: node, address: address, port: port, providers: providers, bootstrap: bootstrap, directory: directory)
        try await waitUntilListening(node, address, port)
        for number in 0..<count { try await cluster.startProvider(number) }
        return cluster
    }

    private init(
        node: ChildProcess, address: String, port: Int, providers: [Provider], bootstrap: String,
        directory: TemporaryDirectory
    ) {
        self.node = node
        self.address = address
        self.port = port
        self.providers = providers
        self.bootstrap = bootstrap
        self.directory = directory
    }

    private static func arguments(_ address: String, _ port: Int, _ store: String, _ bootstrap: String) throws
        -> [String]
    {
        [
            try Project.program(), "--log-level", "DEBUG", "registry", "--store", store, "--registry-addr",
            "\(address):\(port)", "--metrics-addr", "\(address):\(DebugInterface.port)", "--router-addr",
            "\(address):0",
            "--bootstrap-kind", "http", "--http-bootstrap-url", "http://\(bootstrap)/id",
            // A busy machine takes longer than the usual 20 ms for a lookup.
            "--mirror-resolve-timeout", "10s",
        ]
    }

    private static func waitUntilListening(_ process: ChildProcess, _ address: String, _ port: Int) async throws {
        _ = try await process.until("\(address):\(port) listening") { () -> Bool? in
            (try? RawConnection(address, port)) == nil ? nil : true
        }
    }

    /// Starts a provider, unless it runs, and waits until the node finds what it announces from now on.
    func startProvider(_ number: Int) async throws {
        guard running.withLock({ $0[number] == nil }) else { return }
        // Its port is free only when it has gone.
        if let former = killed.withLock({ $0.removeValue(forKey: number) }) { _ = try await former.wait() }
        let start = starts.withLock { starts in
            starts += 1
            return starts
        }
        let provider = providers[number]
        // A name that nobody has announced before tells that the announcements of this start have arrived.
        try provider.layout.addName("docker.io/library/start:\(start)", like: TestImages.demo)
        let process = try await ChildProcess.start(
            Self.arguments(provider.address, port, provider.layout.path, bootstrap))
        running.withLock { $0[number] = process }
        try await Self.waitUntilListening(process, provider.address, port)
        let connection = try RawConnection(address, port)
        _ = try await process.until("the node finding provider \(number)") { () -> Bool? in
            let response = try await connection.request("HEAD", "/v2/library/start/manifests/\(start)?ns=docker.io")
            return response.status == 200 ? true : nil
        }
    }

    /// Kills the provider that gave the node the last bytes of the content.
    ///
    /// - Returns: its number; nil when none gives any.
    func killProvider(serving digest: String) async throws -> Int? {
        let traffic: TrafficSnapshot = try await DebugInterface.document("traffic", of: address)
        // Of a transfer that has ended, too: the client may not have read the last bytes yet.
        let serving = (traffic.recentTransfers + traffic.transfers).last { $0.reference == digest }?.sources.last
        guard let serving, let number = providers.firstIndex(where: { serving.address == $0.address }) else {
            return nil
        }
        kill(number)
        return number
    }

    /// Stops a provider as a roll-out does, and waits for its end.
    func stop(_ number: Int) async throws {
        guard let process = running.withLock({ $0.removeValue(forKey: number) }) else { return }
        process.send(SIGTERM)
        guard try await process.wait() == .exited(0) else { throw HarnessFailure("provider \(number): \(process.log)") }
    }

    /// Kills a provider.
    func kill(_ number: Int) {
        guard let process = running.withLock({ $0.removeValue(forKey: number) }) else { return }
        process.send(SIGKILL)
        killed.withLock { $0[number] = process }
    }

    /// Resident memory of the node in MiB.
    var residentMiB: Double {
        let text = (try? String(contentsOfFile: "/proc/\(node.pid)/statm", encoding: .utf8)) ?? ""
        return (text.split(separator: " ").dropFirst().first.flatMap { Double($0) } ?? 0) * 4096 / 1_048_576
    }

    /// How many transfers of the node went on after their peer had failed.
    var resumes: Int {
        get async throws { try await DebugInterface.counter("spegel_mirror_resumes_total", of: address) }
    }

    /// The target of a blob.
    static func blob(_ digest: String) -> String { "/v2/library/demo/blobs/\(digest)?ns=docker.io" }

    /// Fetches a blob from the node and checks it while it comes.
    ///
    /// - Returns: the bytes of body that came, and whether they are all there and right.
    func fetch(
        _ digest: String, size: Int, progress: @Sendable (Int) async throws -> Void = { _ in }
    ) async throws -> (status: Int, bytes: Int, isRight: Bool) {
        let connection = try RawConnection(address, port)
        try await connection.send(Array("GET \(Self.blob(digest)) HTTP/1.1\r\nHost: test\r\n\r\n".utf8))
        let head = try await connection.responseHead()
        guard head.status == 200, head.header("content-length") == "\(size)" else { return (head.status, 0, false) }
        let (bytes, isRight) = try await connection.verify(
            Digest(parsing: digest), count: size, progress: progress)
        return (head.status, bytes, isRight)
    }
}

extension TestLayout {
    /// What clients of a mirror ask for by digest, of one image: the targets, with the bytes they have to get.
    func mirrored(_ name: String) throws -> [(target: String, bytes: [UInt8])] {
        try digests(of: name).map { digest in
            let isManifest = (try? manifest(digest))?["schemaVersion"] != nil
            let target = "/v2/library/demo/\(isManifest ? "manifests" : "blobs")/\(digest)?ns=docker.io"
            return (target, [UInt8](try blob(digest)))
        }
    }

    /// Gives an image a further name.
    func addName(_ name: String, like other: String) throws {
        let url = URL(fileURLWithPath: "\(path)/index.json")
        guard var index = try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any],
            var manifests = index["manifests"] as? [[String: Any]]
        else { throw HarnessFailure("no index in \(path)") }
        let wanted = manifests.first {
            ($0["annotations"] as? [String: String])?["io.containerd.image.name"] == other
        }
        guard var manifest = wanted else { throw HarnessFailure("\(path) has no image \(other)") }
        manifest["annotations"] = ["org.opencontainers.image.ref.name": name, "io.containerd.image.name": name]
        manifests.append(manifest)
        index["manifests"] = manifests
        try JSONSerialization.data(withJSONObject: index).write(to: url, options: .atomic)
    }
}
