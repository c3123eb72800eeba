import NIOCore
import OCIDistribution

/// What all requests of one event loop share. Confined to it.
final class MirrorLoop {
    let eventLoop: any EventLoop
    let pool: PeerPool
    var latency = LatencyEstimator()
    /// Transfers that take in others who ask for the same, until the first byte has been sent. There are as many as
    /// requests under way, at most.
    private var shared: [SharedRequest: MirrorExchange] = [:]
    /// The media types of manifests that were looked into lately: what a digest stands for does not change.
    private var manifestTypes: [Digest: String] = [:]

    init(eventLoop: any EventLoop, pool: PeerPool) {
        self.eventLoop = eventLoop
        self.pool = pool
    }

    /// Most media types that are remembered; then it begins anew.
    static let manifestTypeLimit = 1024

    func manifestType(of digest: Digest) -> String? { manifestTypes[digest] }

    func remember(_ type: String, of digest: Digest) {
        if manifestTypes.count >= Self.manifestTypeLimit { manifestTypes.removeAll(keepingCapacity: true) }
        manifestTypes[digest] = type
    }

    // MARK: Sharing

    /// What two requests must have in common to be served by one transfer.
    private struct SharedRequest: Hashable {
        var distribution: DistributionRequest
        var isHead: Bool

        init(_ request: MissRequest) {
            distribution = request.distribution
            isHead = request.isHead
        }
    }

    /// The transfer that a request can be served by.
    func transfer(for request: MissRequest) -> MirrorExchange? {
        request.range == nil ? shared[SharedRequest(request)] : nil
    }

    /// Lets others who ask for the same find a transfer.
    ///
    /// - Returns: false when there is one already, or it is not for sharing.
    func share(_ exchange: MirrorExchange) -> Bool {
        guard exchange.request.range == nil else { return false }
        let key = SharedRequest(exchange.request)
        guard shared[key] == nil else { return false }
        shared[key] = exchange
        return true
    }

    /// A transfer takes in nobody any more.
    func forget(_ exchange: MirrorExchange) { shared[SharedRequest(exchange.request)] = nil }
}
