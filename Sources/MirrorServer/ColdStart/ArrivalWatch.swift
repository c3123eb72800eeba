import ContentStore
import NIOConcurrencyHelpers
import OCIDistribution
import PeerRoutingCore

/// Tells the arbiter how content comes along that this node has claimed, until the store has it or has given up.
final class ArrivalWatch: Sendable {
    /// How it ended.
    enum Outcome: String, Sendable, CaseIterable {
        case complete, failed
    }

    /// One content, for logs and status pages.
    struct Report: Sendable, Hashable {
        var digest: Digest
        var size: Int64
        /// Bytes that have arrived.
        var bytes: Int64
        /// The peer it comes from; nil for the upstream.
        var parent: PeerID?
        /// Peers that were given some of it while it arrived.
        var servedPeers: Int
        var seconds: Double
    }

    private struct State {
        var parent: PeerID?
        var bytes: Int64 = 0
        var served: Set<String> = []
        var task: Task<Void, Never>?
    }

    /// How often the store is looked at.
    private static let pollInterval = Duration.milliseconds(100)
    /// How often the arbiter is told, at least: a quarter of the lease.
    private static let reportInterval = Duration.milliseconds(500)
    /// How long the content may not grow, or be complete and not in the store, until the watch ends.
    private static let idleLimit = Duration.seconds(20)
    /// Peers that are counted.
    private static let servedLimit = 256

    private let arriving: ArrivingContent
    private let began = ContinuousClock.now
    private let state: NIOLockedValueBox<State>

    init(_ arriving: ArrivingContent, parent: PeerID?) {
        self.arriving = arriving
        state = NIOLockedValueBox(State(parent: parent))
    }

    var report: Report {
        let (parent, bytes, served) = state.withLockedValue { ($0.parent, $0.bytes, $0.served.count) }
        return Report(
            digest: arriving.digest, size: arriving.size, bytes: bytes, parent: parent, servedPeers: served,
            seconds: began.duration(to: .now) / .seconds(1))
    }

    /// The content comes from another peer now; nil for the upstream.
    func follow(_ parent: PeerID?) { state.withLockedValue { $0.parent = parent } }

    /// A peer was given some of it.
    func served(_ address: String) {
        state.withLockedValue { if $0.served.count < Self.servedLimit { $0.served.insert(address) } }
    }

    /// - Parameter onEnd: called once.
    func start(router: any PeerRouter, store: any ContentStore, onEnd: @escaping @Sendable (Outcome) -> Void) {
        let task = Task { [self] in
            let outcome = await watch(router, store)
            _ = await router.report(outcome == .complete ? .complete : .failed, of: "\(arriving.digest)")
            onEnd(outcome)
        }
        state.withLockedValue { $0.task = task }
    }

    /// Ends the watch early.
    func stop() async {
        let task = state.withLockedValue { $0.task }
        task?.cancel()
        await task?.value
    }

    private func watch(_ router: any PeerRouter, _ store: any ContentStore) async -> Outcome {
        var (lastGrowth, lastReport) = (ContinuousClock.now, ContinuousClock.now)
        while !Task.isCancelled {
            if (try? await store.info(arriving.digest)) != nil {
                state.withLockedValue { $0.bytes = arriving.size }
                return .complete
            }
            let now = ContinuousClock.now
            switch arriving.status {
            case .failed:
                // It was given up, or committed and removed, or the store has not noticed the commit yet.
                try? await Task.sleep(for: Self.pollInterval)
                return (try? await store.info(arriving.digest)) != nil ? .complete : .failed
            case .complete: note(arriving.size, now, &lastGrowth)
            case .arriving(let bytes): note(bytes, now, &lastGrowth)
            }
            if now - lastGrowth >= Self.idleLimit { return .failed }
            if now - lastReport >= Self.reportInterval {
                lastReport = now
                let (bytes, parent) = state.withLockedValue { (UInt64($0.bytes), $0.parent) }
                // An arbiter that was restarted, or another one, is told who this is.
                if await !router.report(.arriving(bytes: bytes), of: "\(arriving.digest)") {
                    let current = parent.map { ContentClaim.Current.following($0) } ?? .leading
                    _ = await router.claim(
                        ContentClaim(key: "\(arriving.digest)", offset: bytes, current: current))
                }
            }
            try? await Task.sleep(for: Self.pollInterval)
        }
        return .failed
    }

    private func note(_ bytes: Int64, _ now: ContinuousClock.Instant, _ lastGrowth: inout ContinuousClock.Instant) {
        let grew = state.withLockedValue { state in
            defer { state.bytes = bytes }
            return bytes > state.bytes
        }
        if grew { lastGrowth = now }
    }
}
