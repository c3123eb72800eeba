import ContentStore
import Logging
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// How a node fetches content that no node holds yet together with the others that want it.
public struct ColdStartConfiguration: Sendable, Hashable {
    /// How long a request may wait without a byte before it is left to the upstream, 100 ms to 30 s (`--cold-start-wait`).
    public var wait: Duration

    /// Values out of range are replaced by the nearest ones within.
    public init(wait: Duration = .seconds(10)) {
        self.wait = min(max(wait, .milliseconds(100)), .seconds(30))
    }
}

/// Fetches content that no node holds yet once for all nodes that want it.
///
/// When the node's container runtime has begun to fetch such content, the node claims it. It then either leads: its request is
/// answered `404`, the runtime fetches from the upstream, and this node serves what has arrived. Or it follows: its request is
/// answered from another claimant whose copy still grows. Until the content is complete, the node tells the arbiter how it
/// comes along.
final class ColdStart: Sendable {
    /// What a request does for which no peer was found.
    enum Decision: Sendable {
        /// It is left to the upstream.
        case upstream
        /// It is answered from this peer.
        case follow(Peer)
    }

    /// How often the store is asked for content that another node waits for.
    private static let pollInterval = Duration.milliseconds(10)
    /// Contents that are watched at a time; further ones are not claimed.
    static let watchLimit = 1024
    /// How long content is left to the upstream after what its tree gave was wrong.
    static let distrustTime = TimeAmount.minutes(1)
    /// How long another node may take to begin with the response for a blob: it need not have a byte of it.
    static let firstByteTimeout = Duration.seconds(2)

    private struct State {
        var watches: [Digest: ArrivalWatch] = [:]
        /// Of which wrong bytes came, until when; as many as watches.
        var distrusted: [Digest: NIODeadline] = [:]
        /// Bytes per second of the last large content that this node got from the upstream; 0 before.
        var upstreamRate: UInt64 = 0
        var isShutDown = false
    }

    let configuration: ColdStartConfiguration
    private let router: any PeerRouter
    private let store: any ContentStore
    private let metrics: ColdStartMetrics
    private let logger: Logger
    private let state = NIOLockedValueBox(State())

    init(
        configuration: ColdStartConfiguration, router: any PeerRouter, store: any ContentStore,
        metrics: ColdStartMetrics, logger: Logger
    ) {
        self.configuration = configuration
        self.router = router
        self.store = store
        self.metrics = metrics
        self.logger = logger
    }

    /// Whether a claim can come to anything. If not, a miss costs what it costs without cold starts.
    var canClaim: Bool { router.canClaim }

    /// Claims content for which a request found no peer, if the store has begun to receive it.
    ///
    /// - Parameters:
    ///   - offset: the bytes that the client has.
    ///   - failedParent: the peer that was followed until now.
    func claim(_ digest: Digest, offset: Int64, failedParent: PeerID?) async -> Decision {
        guard mayClaim(digest), let arriving = try? await store.openArriving(digest) else {
            metrics.claimed(.notFetching)
            return .upstream
        }
        let began = ContinuousClock.now
        let answer = await router.claim(
            ContentClaim(
                key: "\(digest)", offset: UInt64(max(0, offset)), failedParent: failedParent,
                upstreamRate: state.withLockedValue { $0.upstreamRate }))
        if failedParent != nil { metrics.handOvers.increment() }
        logger.debug(
            "content claimed",
            metadata: [
                "digest": "\(digest)", "offset": "\(offset)", "answer": "\(answer)",
                "failed": "\(failedParent.map { "\($0)" } ?? "")", "duration": "\(began.duration(to: .now))",
            ])
        switch answer {
        case .unknown:
            metrics.claimed(.unknown)
            return .upstream
        case .lead:
            metrics.claimed(.lead)
            watch(arriving, parent: nil)
            return .upstream
        case .follow(let peer):
            metrics.claimed(.follow)
            watch(arriving, parent: peer.id)
            return .follow(peer)
        }
    }

    /// A request that follows a peer has the head of its response.
    func firstByte(after time: TimeAmount) { metrics.wait.recordNanoseconds(time.nanoseconds) }

    /// What a claimant sent was wrong. It cannot be told whose fault that is, so the content is left to the upstream for a
    /// while.
    func distrust(_ digest: Digest) {
        let until = NIODeadline.now() + Self.distrustTime
        state.withLockedValue { state in
            if state.distrusted.count >= Self.watchLimit { state.distrusted = [:] }
            state.distrusted[digest] = until
        }
    }

    private func mayClaim(_ digest: Digest) -> Bool {
        state.withLockedValue { state in
            guard !state.isShutDown, state.watches[digest] != nil || state.watches.count < Self.watchLimit else {
                return false
            }
            guard let until = state.distrusted[digest] else { return true }
            if NIODeadline.now() < until { return false }
            state.distrusted[digest] = nil
            return true
        }
    }

    // MARK: Serving what arrives

    /// Opens content that the store is receiving, for another claimant.
    ///
    /// - Parameter isWhole: whether to wait until the store has all of it, for as long as a request may wait. A manifest is served
    ///   so, because its media type is part of the response's head.
    /// - Returns: nil when the store is not receiving it, or not in time.
    func open(_ digest: Digest, isWhole: Bool) async -> OpenContent? {
        let deadline = ContinuousClock.now + configuration.wait
        repeat {
            // In this order: what is committed in between is found the next time.
            let isWatched = state.withLockedValue { $0.watches[digest] != nil }
            let arriving = try? await store.openArriving(digest)
            if let content = try? await store.open(digest) { return content }
            if let arriving, !isWhole {
                let info = ContentInfo(digest: digest, size: arriving.size, mediaType: .octetStream)
                return OpenContent(info: info, body: .stream(arriving.stream(stallTimeout: configuration.wait)))
            }
            guard isWatched || arriving != nil else { return nil }
            try? await Task.sleep(for: Self.pollInterval)
        } while ContinuousClock.now < deadline && !Task.isCancelled
        return nil
    }

    /// Bytes of content that was arriving were given to a peer.
    func served(_ digest: Digest, bytes: Int64, to address: String) {
        metrics.servedBytes.increment(by: bytes)
        state.withLockedValue { $0.watches[digest] }?.served(address)
    }

    // MARK: Watching

    private func watch(_ arriving: ArrivingContent, parent: PeerID?) {
        let digest = arriving.digest
        let new = state.withLockedValue { state -> ArrivalWatch? in
            guard !state.isShutDown else { return nil }
            if let watch = state.watches[digest] {
                watch.follow(parent)
                return nil
            }
            let watch = ArrivalWatch(arriving, parent: parent)
            state.watches[digest] = watch
            return watch
        }
        guard let new else { return }
        new.start(router: router, store: store) { [weak self] outcome in self?.ended(new, outcome) }
    }

    private func ended(_ watch: ArrivalWatch, _ outcome: ArrivalWatch.Outcome) {
        let report = watch.report
        state.withLockedValue { state in
            state.watches[report.digest] = nil
            // Small content says more about the delay than about the rate.
            if outcome == .complete, report.parent == nil, report.size >= 4 << 20, report.seconds > 0 {
                state.upstreamRate = UInt64(Double(report.size) / report.seconds)
            }
        }
        metrics.ended(outcome, isLeader: report.parent == nil)
        logger.info(
            "cold start",
            metadata: [
                "digest": "\(report.digest)", "outcome": "\(outcome.rawValue)", "bytes": "\(report.size)",
                "role": report.parent == nil ? "leader" : "follower",
                "parent": "\(report.parent.map { "\($0)" } ?? "upstream")", "served": "\(report.servedPeers)",
                "seconds": "\((report.seconds * 1000).rounded() / 1000)",
            ])
    }

    /// Contents that are being fetched together with others.
    var contents: Int { state.withLockedValue { $0.watches.count } }

    /// What is being fetched together with others now, for status pages.
    var reports: [ArrivalWatch.Report] {
        state.withLockedValue { Array($0.watches.values) }.map(\.report).sorted {
            $0.digest.description < $1.digest.description
        }
    }

    /// Ends all watches; the arbiters hear that the claims have failed.
    func shutdown() async {
        let watches = state.withLockedValue { state in
            state.isShutDown = true
            return Array(state.watches.values)
        }
        for watch in watches { await watch.stop() }
    }
}
