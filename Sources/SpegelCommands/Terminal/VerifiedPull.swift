import ContentStore
import Logging
import OCIDistribution
import RegistryClient

/// A pull that is shown while it happens, and the verification of every piece of it afterwards.
package struct VerifiedPull {
    private let endpoint: RegistryEndpoint
    private let platforms: PlatformSelection
    private let authorization: String?
    private let store: OnDiskContentStore
    private let terminal: Terminal
    private let logger: Logger
    private let observe: @Sendable (PullEvent) async -> Void

    package struct Result {
        package var pull: PullReport
        package var verification: VerificationReport

        package var isSound: Bool { verification.isSound && verification.isComplete }
    }

    /// - Parameters:
    ///   - platforms: What is taken of an index.
    ///   - authorization: The `Authorization` field of each request.
    ///   - observe: Receives every event too, from any thread; the pull goes on when it returns.
    package init(
        endpoint: RegistryEndpoint, platforms: PlatformSelection = .current, authorization: String? = nil,
        store: OnDiskContentStore, terminal: Terminal, logger: Logger,
        observe: @escaping @Sendable (PullEvent) async -> Void = { _ in }
    ) {
        self.endpoint = endpoint
        self.platforms = platforms
        self.authorization = authorization
        self.store = store
        self.terminal = terminal
        self.logger = logger
        self.observe = observe
    }

    /// Pulls what the reference names.
    ///
    /// - Throws: ``PullError``, `ContentStoreError` or `CancellationError`.
    package func run(_ reference: Reference) async throws -> Result {
        let client = RegistryClient(authorization: authorization, logger: logger)
        let display = PullDisplay(terminal: terminal)
        let report: PullReport
        do {
            report = try await ImagePull(
                client: client, endpoint: endpoint, store: store, platforms: platforms, logger: logger,
                report: { event in
                    display.show(event)
                    await observe(event)
                }
            ).run(reference)
        } catch {
            display.end()
            await client.shutdown()
            throw error
        }
        display.end()
        await client.shutdown()
        let digests = Set(report.contents.map(\.descriptor.digest))
        let verification = try await LayoutCheck(store: store, terminal: terminal, digests: Array(digests)).run()
        return Result(pull: report, verification: verification)
    }
}
