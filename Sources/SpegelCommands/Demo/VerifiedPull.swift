import ContentStore
import Logging
import OCIDistribution
import RegistryClient

/// A pull that is shown while it happens, and the verification of every piece of it afterwards.
struct VerifiedPull {
    var endpoint: RegistryEndpoint
    var store: OnDiskContentStore
    var terminal: Terminal
    var logger: Logger
    /// Hears of every event too, from any thread.
    var observe: @Sendable (PullEvent) -> Void = { _ in }

    struct Result {
        var pull: PullReport
        var verification: VerificationReport

        var isSound: Bool { verification.isSound && verification.isComplete }
    }

    /// Pulls what the reference names.
    ///
    /// - Throws: ``PullError``, `ContentStoreError` or `CancellationError`.
    func run(_ reference: Reference) async throws -> Result {
        let client = RegistryClient(logger: logger)
        let display = PullDisplay(terminal: terminal)
        let report: PullReport
        do {
            report = try await ImagePull(
                client: client, endpoint: endpoint, store: store, logger: logger,
                report: { event in
                    display.show(event)
                    observe(event)
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
