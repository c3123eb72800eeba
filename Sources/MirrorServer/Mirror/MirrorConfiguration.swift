import NIOCore

/// How a node fetches from peers, with all limits.
public struct MirrorConfiguration: Sendable {
    /// The client that sends requests to peers.
    public var peers: PeerClientConfiguration
    /// How long a request waits for a lookup to find a first peer (`--mirror-resolve-timeout`).
    ///
    /// The wait starts with the lookup, which may be queued behind others. Time in which this process is stalled does not
    /// count, up to ``stallAllowance``.
    public var resolveTimeout: Duration = .milliseconds(20)
    /// Most peers asked in one race (`--mirror-resolve-retries`). Peers that cannot be reached do not count.
    public var resolveRetries = 3
    /// Whether peers are asked what a tag stands for (`--resolve-tags`); if not, a tag that is not in the local store is not
    /// found, and the client asks the registry.
    public var resolvesTags = true
    /// How content is fetched that no node holds yet (`--cold-start`); nil to leave it to the upstream. Takes effect with a
    /// router that knows the claim protocol.
    public var coldStart: ColdStartConfiguration? = ColdStartConfiguration()
    /// Whether peers' bytes are verified (`--verify`).
    public var verification: VerificationPolicy = .on
    /// Content up to this size in bytes is buffered until it is verified, so that wrong bytes are replaced by another
    /// peer's before anything is sent.
    public var bufferedContentBytes = 1024 * 1024
    /// Bytes at the end of larger content that are sent only when its digest is verified.
    public var unverifiedTailBytes = 64 * 1024
    /// Time within which HEAD and manifest requests are answered.
    public var manifestTimeout: Duration = .seconds(3)
    /// Time within which the response to a blob request begins.
    public var blobTimeout: Duration = .seconds(30)
    /// How long an interrupted transfer waits for a peer that continues it.
    public var resumeTimeout: Duration = .seconds(2)
    /// Most interruptions of a transfer in a row without ``resumeBytes`` in between.
    public var resumesWithoutProgress = 8
    /// See ``resumesWithoutProgress``.
    public var resumeBytes = 64 * 1024
    /// How long one client of a shared transfer may block the others before it gets a transfer of its own.
    var slowClientTimeout: Duration = .milliseconds(500)
    /// The most time in the whole life of a request in which its deadlines stand still because this process is stalled:
    /// not scheduled, or with busy event loops or a busy task executor. At most one second; zero for deadlines that never
    /// stand still.
    public var stallAllowance: Duration = .seconds(1)
    /// Most requests under way. Beyond it a request is answered `429`.
    public var concurrentTransfers = 4096
    /// Bytes in memory of all streaming transfers together.
    public var streamingBytes = 24 * 1024 * 1024
    /// Bytes of all buffered bodies together. Beyond it they are streamed with an unverified tail.
    public var bufferedBytes = 16 * 1024 * 1024
    /// Threads that hash large bodies; nil for one per core, at most four.
    public var hashingThreads: Int?

    /// The default limits.
    public init() { self.init(peerPort: 0) }

    /// The default limits, with the port of the peers' registries.
    package init(peerPort: Int) {
        peers = PeerClientConfiguration(port: peerPort)
    }

    /// The limits with values out of range replaced by the nearest ones within.
    func clamped() -> MirrorConfiguration {
        var result = self
        result.resolveTimeout = max(resolveTimeout, .zero)
        result.resolveRetries = min(max(resolveRetries, 1), 64)
        result.bufferedContentBytes = min(max(bufferedContentBytes, 0), 64 * 1024 * 1024)
        result.unverifiedTailBytes = min(max(unverifiedTailBytes, 1), 4 * 1024 * 1024)
        result.resumesWithoutProgress = max(resumesWithoutProgress, 1)
        result.resumeBytes = max(resumeBytes, 1)
        result.streamingBytes = max(streamingBytes, 1024 * 1024)
        result.bufferedBytes = max(bufferedBytes, 0)
        result.stallAllowance = min(max(stallAllowance, .zero), .seconds(1))
        result.concurrentTransfers = max(concurrentTransfers, 1)
        return result
    }
}

/// Whether peers' bytes are verified against their digest.
public enum VerificationPolicy: Sendable, Hashable {
    /// Content up to a size is buffered until its digest is verified; larger content is hashed while it is relayed, and
    /// its tail is sent after the verification.
    case on
    /// Nothing is verified: for raw speed among trusted nodes. The client verifies in any case.
    case off
}
