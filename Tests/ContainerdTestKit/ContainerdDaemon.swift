import Foundation
import Synchronization
import TestSupport

/// A containerd of a test's own: its own root, state, socket and configuration, changed from outside by `ctr`.
public final class ContainerdDaemon: Sendable {
    /// Settings that a test may choose.
    public struct Options: Sendable {
        /// Whether the CRI plugin runs.
        public var cri = false
        /// Lines of the CRI plugin's configuration, by table below the plugin: `registry`, `containerd`.
        public var criSettings: [String: [String]] = [:]
        /// Whether every change is followed by garbage collection at once; otherwise only what asks for it runs one.
        public var collectsAtOnce = true
        /// Whether garbage is collected as containerd does by default, whatever ``collectsAtOnce`` says.
        public var collectsByDefault = false

        /// The defaults.
        public init() {}
    }

    private let folder: TemporaryDirectory
    private let options: Options
    private let socketName: String
    private let rootName: String
    private let process = Mutex<ChildProcess?>(nil)
    private let starts = Mutex(0)

    /// The socket.
    public var socketPath: String { "\(folder.path)/\(socketName)" }
    /// The directory that has `blobs`.
    public var contentPath: String { "\(folder.path)/\(rootName)/io.containerd.content.v1.content" }
    /// The configuration file.
    public var configurationPath: String { "\(folder.path)/\(socketName).\(rootName).toml" }
    /// A directory for a test's own files.
    public var path: String { folder.path }
    /// Whether the CRI plugin runs.
    public var hasRuntimeInterface: Bool { options.cri }
    /// Its process ID, when it runs.
    public var pid: pid_t? { process.withLock { $0?.pid } }
    /// What it logged since it was last started.
    public var log: String { process.withLock { $0?.errors } ?? "" }

    /// Prepares a containerd and starts it.
    public static func start(_ options: Options = Options()) async throws -> ContainerdDaemon {
        let daemon = try ContainerdDaemon(options)
        try await daemon.start()
        return daemon
    }

    /// Prepares a containerd that does not run yet.
    public convenience init(_ options: Options = Options()) throws {
        try self.init(TemporaryDirectory("c", inMemory: true), options, socket: "c.sock", root: "root")
    }

    /// The same containerd on another socket; only one of both may run.
    public func withSocket(_ name: String) throws -> ContainerdDaemon {
        try ContainerdDaemon(folder, options, socket: name, root: rootName)
    }

    /// Another containerd, with nothing in it, on the same socket; only one of both may run.
    public func withRoot(_ name: String) throws -> ContainerdDaemon {
        try ContainerdDaemon(folder, options, socket: socketName, root: name)
    }

    private init(_ folder: TemporaryDirectory, _ options: Options, socket: String, root: String) throws {
        self.folder = folder
        self.options = options
        socketName = socket
        rootName = root
        var disabled = [
            "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
            "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
            "io.containerd.snapshotter.v1.overlayfs", "io.containerd.internal.v1.opt",
            "io.containerd.internal.v1.restart", "io.containerd.tracing.processor.v1.otlp",
            "io.containerd.internal.v1.tracing",
        ]
        if !options.cri { disabled.append("io.containerd.grpc.v1.cri") }
        var lines = [
            "version = 2", "root = '\(folder.path)/\(root)'", "state = '\(folder.path)/\(root)-state'",
            "disabled_plugins = [\(disabled.map { "'\($0)'" }.joined(separator: ", "))]",
            "[grpc]", "  address = '\(folder.path)/\(socket)'",
            "[ttrpc]", "  address = '\(folder.path)/t.sock'",
        ]
        if !options.collectsByDefault {
            lines += [
                "[plugins.'io.containerd.gc.v1.scheduler']",
                "  deletion_threshold = \(options.collectsAtOnce ? 1 : 0)",
                "  mutation_threshold = \(options.collectsAtOnce ? 1 : 1_000_000)",
                "  startup_delay = '10ms'",
                // Otherwise the pause between two collections is some tens of milliseconds when anything was deleted.
                "  pause_threshold = \(options.collectsAtOnce ? "0.02" : "0.0000001")",
            ]
        }
        if options.cri {
            lines += ["[plugins.'io.containerd.grpc.v1.cri'.containerd]", "  snapshotter = 'native'"]
            lines += options.criSettings["containerd"] ?? []
            lines += ["[plugins.'io.containerd.grpc.v1.cri'.registry]"] + (options.criSettings["registry"] ?? [])
        }
        try Data(lines.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: configurationPath))
    }

    deinit { process.withLock { $0?.send(SIGKILL) } }

    /// Starts it and waits until it answers.
    public func start() async throws {
        let number = starts.withLock { starts in
            starts += 1
            return starts
        }
        let program = try await ChildProcess.start(
            ["containerd", "--config", configurationPath], output: (folder.path, "\(socketName).\(rootName).\(number)"))
        process.withLock { $0 = program }
        _ = try await eventually("containerd's start", detail: { program.errors }) { () -> Bool? in
            guard program.isRunning else { throw HarnessFailure("containerd ended\n\(program.errors)") }
            return program.errors.contains("containerd successfully booted") ? true : nil
        }
    }

    /// Ends it and waits for the end.
    public func stop(_ signal: Int32 = SIGTERM) async throws {
        guard let program = process.withLock({ $0 }) else { return }
        program.send(signal)
        _ = try await program.wait()
        process.withLock { $0 = nil }
    }

    /// Runs `ctr`; it must succeed.
    ///
    /// - Returns: its standard output.
    @discardableResult
    public func ctr(namespace: String = "k8s.io", _ arguments: String...) async throws -> String {
        try await Command.check(ctrCommand(namespace) + arguments)
    }

    /// Starts `ctr` without waiting for its end.
    package func startCtr(namespace: String = "k8s.io", label: String, _ arguments: String...) async throws
        -> ChildProcess
    {
        try await ChildProcess.start(ctrCommand(namespace) + arguments, output: (folder.path, label))
    }

    /// `ctr` for a namespace, to be followed by what it shall do. By itself it gives up after 10 s without an answer.
    public func ctrCommand(_ namespace: String = "k8s.io") -> [String] {
        ["ctr", "--connect-timeout", "2m", "--address", socketPath, "--namespace", namespace]
    }

    /// The digests that containerd itself lists in a namespace.
    public func listedDigests(namespace: String = "k8s.io") async throws -> Set<String> {
        Set(try await ctr(namespace: namespace, "content", "ls", "-q").split(separator: "\n").map(String.init))
    }

    /// The references of what is being written in a namespace.
    public func ingests(namespace: String = "k8s.io") async throws -> [String] {
        try await ctr(namespace: namespace, "content", "active").split(separator: "\n").dropFirst().map(String.init)
    }

    /// The processor time that containerd has used so far.
    public func processorTime() throws -> Duration {
        guard let pid, let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
            let rest = text.split(separator: ")").last
        else { throw HarnessFailure("containerd does not run") }
        let fields = rest.split(separator: " ")
        guard fields.count > 12, let user = Int(fields[11]), let system = Int(fields[12]) else {
            throw HarnessFailure("unexpected /proc/\(pid)/stat")
        }
        return .milliseconds((user + system) * 1000 / sysconf(Int32(_SC_CLK_TCK)))
    }
}
