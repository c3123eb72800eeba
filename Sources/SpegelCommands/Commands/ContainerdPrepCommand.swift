import ArgumentParser
import ContainerdContentStore
import Foundation
import Logging
import NIOConcurrencyHelpers
import NodeConfiguration
import ServiceLifecycle
import UnixSignals

/// `spegel containerd-prep`: sets what a mirror needs in containerd's `config.toml`.
struct ContainerdPrepCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "containerd-prep",
        abstract: "Sets config_path and discard_unpacked_layers = false in containerd's configuration.",
        discussion: """
            Reads FILE with its imports and changes only what is not in force yet; every other byte stays. The former file is kept \
            beside it as FILE.spegel-backup. containerd is restarted only when something changed, and only with \
            --restart-command or --restart-systemd; when it does not answer afterwards, the former file is put back. \
            Exits with 0 when both settings are in force.
            """
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "containerd's main configuration file.", transform: ScalarOption.text)
    var containerdConfigFile = "/etc/containerd/config.toml"

    @Option(help: "Directory of containerd's registry configuration.", transform: ScalarOption.text)
    var containerdRegistryConfigPath = "/etc/containerd/certs.d"

    @Option(help: "containerd's socket, asked for its version and whether it is up.", transform: ScalarOption.text)
    var containerdSock = "/run/containerd/containerd.sock"

    @Option(help: "The containerd program, asked whether it accepts the change.", transform: ScalarOption.text)
    var containerdBinary = "containerd"

    @Option(help: "Shell command that restarts containerd.", transform: ScalarOption.text)
    var restartCommand: String?

    @Option(
        help: "Whether to restart containerd through systemd, from a container in the host's namespaces.",
        transform: ScalarOption.boolean)
    var restartSystemd = false

    @Option(help: "How long containerd may take to answer after the restart.", transform: DurationOption.positive)
    var restartTimeout: Duration = .seconds(60)

    @Option(help: "Whether only to show the change.", transform: ScalarOption.boolean)
    var dryRun = false

    @Option(help: "Stay, and check again so often.", transform: DurationOption.positive)
    var interval: Duration?

    func validate() throws {
        guard restartCommand == nil || !restartSystemd else {
            throw ValidationError("'--restart-command' and '--restart-systemd' are two ways of one thing; give one.")
        }
        guard interval == nil || !dryRun else {
            throw ValidationError("'--interval' and '--dry-run' do not go together.")
        }
    }

    func run() async throws {
        let logger = Logger.program(global)
        if dryRun {
            let plan = try await failing { try await preparer(logger).plan() }
            for warning in plan.warnings { Program.printError("warning: \(warning)") }
            print(plan.changes.isEmpty ? "Nothing to change." : plan.diff, terminator: plan.changes.isEmpty ? "\n" : "")
            return
        }
        guard let interval else { return try await failing { try await runOnce(logger) } }
        let rejected = RejectedChanges()
        let rounds = PreparationRounds(interval: interval) {
            var planned: [ContainerdPreparation.Change] = []
            do {
                planned = try await preparer(logger).plan().changes
                guard planned.isEmpty || planned != rejected.changes else { return }
                try await runOnce(logger)
            } catch {
                // The next round may find it repaired; the message says what is wrong now. What containerd refused is not
                // tried again while the files are the same, as each try may restart containerd.
                if case .refused? = error as? ContainerdConfigurationError { rejected.changes = planned }
                logger.error("containerd is not prepared", metadata: ["error": "\(error)"])
            }
        }
        try await ServiceGroup(services: [rounds], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger).run()
    }

    private func runOnce(_ logger: Logger) async throws {
        let outcome = try await preparer(logger).run()
        for warning in outcome.preparation.warnings { logger.warning("\(warning)") }
        if outcome.preparation.changes.isEmpty {
            logger.info("containerd is prepared, nothing to change", metadata: ["file": "\(containerdConfigFile)"])
        } else if !outcome.isRestarted {
            logger.warning(
                "the change takes effect when containerd is restarted",
                metadata: ["hint": "restart it, or give --restart-command or --restart-systemd"])
        }
    }

    private func preparer(_ logger: Logger) async -> ContainerdPreparer {
        let socket = containerdSock
        let before = await ContainerdProbe.health(socket: socket)
        // A CRI plugin that was loaded has to be loaded again; one that was not is another's concern.
        let wantsCRI = before.map { $0.criFailure == nil } ?? true
        var preparer = ContainerdPreparer(isAnswering: {
            guard let health = await ContainerdProbe.health(socket: socket) else { return false }
            guard wantsCRI, let failure = health.criFailure else { return true }
            logger.warning("containerd's CRI plugin is not loaded", metadata: ["reason": "\(failure)"])
            return false
        }) {
            logger.info("\($0)")
        }
        preparer.configurationFile = containerdConfigFile
        preparer.registryDirectory = containerdRegistryConfigPath
        preparer.restartTimeout = restartTimeout
        preparer.program = HostCommand([containerdBinary], onHost: restartSystemd && Self.isInContainer)
        if let restartCommand {
            // In a container the node's shell is meant; this program's image has none.
            preparer.restart = HostCommand(["/bin/sh", "-c", restartCommand], onHost: Self.isInContainer)
        } else if restartSystemd {
            preparer.restart = HostCommand(["systemctl", "restart", "containerd"], onHost: Self.isInContainer)
        }
        if let version = before?.version {
            preparer.release = ContainerdRelease(in: version)
        } else if var program = preparer.program {
            program.arguments.append("--version")
            program.timeout = .seconds(10)
            if let outcome = try? await program.run(), outcome.succeeded {
                preparer.release = ContainerdRelease(in: outcome.output)
            }
        }
        return preparer
    }

    private func failing<Result>(_ body: () async throws -> Result) async throws -> Result {
        do { return try await body() } catch let error as ContainerdConfigurationError {
            throw CommandFailure("\(error)")
        }
    }

    /// Whether process 1 lives in another mount namespace than this process.
    private static var isInContainer: Bool {
        guard let own = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/mnt"),
            let first = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/1/ns/mnt")
        else { return false }
        return own != first
    }
}

/// The last change that containerd refused. Used by one task.
private final class RejectedChanges: Sendable {
    private let state = NIOLockedValueBox<[ContainerdPreparation.Change]>([])

    var changes: [ContainerdPreparation.Change] {
        get { state.withLockedValue { $0 } }
        set { state.withLockedValue { $0 = newValue } }
    }
}

/// Prepares containerd again and again, as node images and other tools change its configuration.
private struct PreparationRounds: Service {
    var interval: Duration
    var round: @Sendable () async -> Void

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                await round()
                try? await Task.sleep(for: interval)
            }
        }
    }
}
