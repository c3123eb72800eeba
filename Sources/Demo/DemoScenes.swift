import ContentStore
import Foundation
import Logging
import MirrorServer
import OCIDistribution
import RegistryClient
import SpegelCommands
import Synchronization

/// What the demonstration shows, one pull after the other.
struct DemoScenes: Sendable {
    let cluster: DemoCluster
    let reference: Reference
    let workDirectory: String
    let terminal: Terminal
    let logger: Logger

    func play() async throws {
        let (second, third) = (cluster.nodes[1], cluster.nodes[2])
        let largest = try await pull(
            through: third, into: "\(workDirectory)/pulled",
            title: "Pulling \(reference) through the third node, which has to find it")
        try await pull(
            through: second, into: second.store,
            title: "Pulling it through the second node into that node's own store, so that it is a provider too",
            showsTable: false)
        // The second node notices its new content and tells the others; they keep for a while what they found before.
        try await Task.sleep(for: .seconds(2))
        if let largest { try await cluster.waitUntilAnnounced(largest.descriptor.digest, by: second) }
        try await pullWhileKilling(through: third, largest: largest)
    }

    /// Pulls once more, and kills the node that serves the largest piece when a third of it has come.
    private func pullWhileKilling(through node: DemoNode, largest: PulledContent?) async throws {
        let killed = Mutex<(number: Int, host: String, at: Int64)?>(nil)
        let (cluster, terminal) = (self.cluster, self.terminal)
        let wanted = largest?.descriptor
        let last = try await node.report().traffic.lastTransfer
        let observe: @Sendable (PullEvent) async -> Void = { event in
            guard case .progress(let digest, let received) = event, let wanted, digest == wanted.digest,
                received >= wanted.size / 3, killed.withLock({ $0 == nil }),
                let source = try? await node.report().traffic.sources(of: "\(digest)", after: last).last
            else { return }
            killed.withLock { killed in
                guard killed == nil, let number = cluster.kill(host: source.address) else { return }
                killed = (number, source.address, received)
            }
            if let killed = killed.withLock({ $0 }) {
                terminal.line(
                    "  \(terminal.red("kill")) -9 of node \(killed.number) (\(killed.host)) after "
                        + "\(Quantity.bytes(killed.at)) of \(digest.hex.prefix(12))")
            }
        }
        try await pull(
            through: node, into: "\(workDirectory)/pulled-again",
            title: "Pulling it through the third node again, and killing the node that serves the largest piece",
            observe: observe)
        guard killed.withLock({ $0 != nil }) else {
            throw CommandFailure(
                "no node could be killed while it served: the third node does not say who served it")
        }
    }

    /// - Returns: the piece with the most bytes.
    @discardableResult
    private func pull(
        through node: DemoNode, into target: String, title: String, showsTable: Bool = true,
        observe: @escaping @Sendable (PullEvent) async -> Void = { _ in }
    ) async throws -> PulledContent? {
        let store = try await OnDiskContentStore.open(path: target, options: .receiving(logger: logger))
        terminal.line()
        terminal.line(terminal.bold(title))
        let last = try await node.report().traffic.lastTransfer
        let result = try await VerifiedPull(
            endpoint: node.endpoint, platforms: .all, store: store, terminal: terminal, logger: logger, observe: observe
        ).run(reference)
        if showsTable {
            terminal.line()
            terminal.line(terminal.bold("What happened"))
            let target = result.pull.target.digest
            let traffic = try await node.report().traffic
            for line in PullTable(
                result.pull, result.verification,
                source: { source(of: $0, isTarget: $0.descriptor.digest == target, traffic, last) }
            ).lines {
                terminal.line("  \(line)")
            }
        }
        for line in VerificationSummary(result.verification).lines(on: terminal) { terminal.line("  \(line)") }
        guard result.isSound else { throw CommandFailure("the pulled image is not sound") }
        return result.pull.contents.max { $0.descriptor.size < $1.descriptor.size }
    }

    /// The peers that served a piece, and from which byte on where it was more than one.
    private func source(
        of content: PulledContent, isTarget: Bool, _ traffic: TrafficSnapshot, _ last: UInt64
    ) -> String? {
        var served = traffic.sources(of: "\(content.descriptor.digest)", after: last)
        if isTarget, served.isEmpty, let tag = reference.tag {
            served = traffic.sources(of: tag, image: "\(reference.registry)/\(reference.repository)", after: last)
        }
        guard let first = served.first else { return nil }
        return ([first.address] + served.dropFirst().map { "\($0.address) from \(Quantity.bytes($0.offset)) on" })
            .joined(separator: ", ")
    }
}
