import OCIDistribution
import RegistryClient
import Synchronization

/// Shows a pull while it happens.
package final class PullDisplay: Sendable {
    private let display: ProgressDisplay
    private let terminal: Terminal
    private let planned = Mutex<[Digest: (role: ContentRole, size: Int64)]>([:])

    package init(terminal: Terminal) {
        self.terminal = terminal
        display = ProgressDisplay(terminal: terminal)
    }

    /// Takes an event of the pull, from any thread.
    @Sendable package func show(_ event: PullEvent) {
        switch event {
        case .planned(let descriptor, let role):
            planned.withLock { $0[descriptor.digest] = (role, descriptor.size) }
        case .started(let digest):
            guard let item = planned.withLock({ $0[digest] }) else { return }
            display.start(digest.hex, label: Self.label(digest, item.role), total: item.size)
        case .progress(let digest, let received):
            display.update(digest.hex, done: received)
        case .retrying(let digest, let reason):
            display.note("  \(terminal.red("again")) \(Self.label(digest, nil)): \(reason)")
        case .finished(let content):
            let digest = content.descriptor.digest
            let rate = Quantity.rate(content.descriptor.size, in: content.duration)
            let how = content.source == nil ? "there already" : "\(Quantity.time(content.duration)), \(rate)"
            display.finish(
                digest.hex,
                line: "  \(terminal.green("done")) \(Self.label(digest, content.role)) "
                    + "\(Quantity.bytes(content.descriptor.size)) (\(how))")
        }
    }

    /// Takes what is still shown away.
    package func end() {
        display.end()
    }

    private static func label(_ digest: Digest, _ role: ContentRole?) -> String {
        "\(digest.hex.prefix(12))" + (role.map { " \($0.rawValue)" } ?? "")
    }
}
