import ArgumentParser
import ContentStore
import Logging
import OCIDistribution

/// `spegel verify PATH`: checks every blob and diffID of an image layout.
struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Checks every blob of an OCI image layout against its digest, and every layer against its diffID.",
        discussion:
            "Exits with 0 when everything is sound, with 1 when something is not, with 64 when PATH is no layout."
    )

    @OptionGroup var global: GlobalOptions

    @Argument(help: "The layout's directory.")
    var path: String

    func run() async throws {
        var options = OnDiskContentStore.Options()
        options.watchesChanges = false
        options.logger = .quiet(global.logLevel)
        let terminal = Terminal.standardOutput
        let store: OnDiskContentStore
        do {
            store = try await OnDiskContentStore.open(path: path, options: options)
        } catch let error as ContentStoreError {
            throw CommandFailure("\(error)", status: Self.isUsage(error) ? 64 : 1)
        }
        let report = try await LayoutCheck(store: store, terminal: terminal).run()
        for line in VerificationSummary(report).lines(on: terminal) {
            terminal.line(line)
        }
        if !(report.isSound && report.isComplete) { throw ExitCode.failure }
    }

    private static func isUsage(_ error: ContentStoreError) -> Bool {
        switch error {
        case .notALayout, .unsupportedLayoutVersion: true
        default: false
        }
    }
}

/// Verifies a layout and shows how far it is.
package struct LayoutCheck {
    private let store: OnDiskContentStore
    private let terminal: Terminal
    private let digests: [Digest]?

    /// - Parameter digests: Which blobs; all when nil.
    package init(store: OnDiskContentStore, terminal: Terminal, digests: [Digest]? = nil) {
        self.store = store
        self.terminal = terminal
        self.digests = digests
    }

    package func run() async throws -> VerificationReport {
        let display = ProgressDisplay(terminal: terminal)
        defer { display.end() }
        return try await store.verify(digests) { progress in
            display.start("all", label: "verifying", total: progress.totalBytes)
            display.update("all", done: progress.checkedBytes)
        }
    }
}
