import ArgumentParser
import ContentStore
import Foundation
import Logging
import NodeConfiguration
import OCIDistribution
import RegistryClient

/// `spegel pull REF`: pulls an image through a mirror and shows what came from where.
struct PullCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull",
        abstract: "Pulls an image through a mirror, verifies every byte and shows what was pulled.",
        discussion: "Without --output it only measures: what was pulled is thrown away."
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "The mirror, as http(s)://host[:port].", transform: RegistryURL.parse)
    var mirror = RegistryURL.registry(scheme: "http", host: "127.0.0.1:5000")

    @Option(help: "An OCI image layout to pull into; made when it is not there.", transform: ScalarOption.text)
    var output: String?

    @Argument(help: "The image, such as docker.io/library/nginx:1.27 or nginx.", transform: ImageName.parse)
    var reference: Reference

    func validate() throws {
        guard mirror != .wildcard else { throw ValidationError("'--mirror' must name a host.") }
    }

    func run() async throws {
        let logger = Logger.quiet(global.logLevel)
        guard case .registry(let scheme, let host) = mirror else { throw ExitCode.validationFailure }
        if let output {
            try await pull(into: output, RegistryEndpoint(scheme: scheme, authority: host), logger)
            return
        }
        let temporary = FileManager.default.temporaryDirectory.appendingPathComponent("spegel-pull-\(UUID())").path
        defer { try? FileManager.default.removeItem(atPath: temporary) }
        try await pull(into: temporary, RegistryEndpoint(scheme: scheme, authority: host), logger)
    }

    private func pull(into path: String, _ endpoint: RegistryEndpoint, _ logger: Logger) async throws {
        let terminal = Terminal.standardOutput
        do {
            let store = try await OnDiskContentStore.open(path: path, options: .receiving(logger: logger))
            let result = try await VerifiedPull(
                endpoint: endpoint, store: store, terminal: terminal, logger: logger
            ).run(reference)
            for line in PullTable(result.pull, result.verification).lines { terminal.line(line) }
            for line in VerificationSummary(result.verification).lines(on: terminal) { terminal.line(line) }
            guard result.isSound else { throw ExitCode.failure }
        } catch let error as PullError {
            throw CommandFailure("\(error)")
        } catch let error as ContentStoreError {
            throw CommandFailure("\(error)")
        }
    }
}

/// Reads names of images.
enum ImageName {
    /// The transform of the argument: short names are Docker's, and a name without tag or digest means `latest`.
    @Sendable static func parse(_ text: String) throws -> Reference {
        do {
            return try Reference(parsingWithDockerDefaults: text).withDefaultTag
        } catch {
            throw OptionError("an image such as docker.io/library/nginx:1.27 (\(error))")
        }
    }
}
