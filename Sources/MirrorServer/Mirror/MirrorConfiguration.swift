import NIOCore

/// How a node fetches from peers, with all the bounds.
public struct MirrorConfiguration: Sendable {
    /// The client that asks the peers.
    public var peers: PeerClientConfiguration
    /// How long a request waits for a first peer to be found (`--mirror-resolve-timeout`).
    ///
    /// It bounds the wait for the network: time in which this process could not act, and time for which the lookup is
    /// queued behind others, does not count (see ``lagAllowance``).
    public var resolveTimeout: Duration = .milliseconds(20)
    /// Most peers a request asks in one race (`--mirror-resolve-retries`). Peers that cannot be reached do not count.
    public var resolveRetries = 3
    /// Whether peers' bytes are checked (`--verify`).
    public var verification: VerificationPolicy = .on
    /// Content up to this size in bytes is held until it is checked, so that wrong bytes are replaced by another peer's
    /// without the client noticing.
    public var heldContentBytes = 1024 * 1024
    /// Bytes at the end of larger content that are withheld until its digest is known to be right.
    public var withheldBytes = 64 * 1024
    /// Time within which HEAD and manifest requests are answered.
    public var manifestTimeout: Duration = .seconds(3)
    /// Time within which the response to a blob request begins.
    public var blobTimeout: Duration = .seconds(30)
    /// How long a transfer that broke off waits for a peer to be found that carries it on.
    public var resumeTimeout: Duration = .seconds(2)
    /// Most breaks of a transfer one after the other without ``resumeBytes`` in between.
    public var fruitlessResumes = 8
    /// See ``fruitlessResumes``.
    public var resumeBytes = 64 * 1024
    /// How long one client of a shared transfer may hold the others up before it goes on alone.
    var clientPatience: Duration = .milliseconds(500)
    /// By how much the deadlines of a request that does not get on are put off, at most, by time in which this process
    /// could not act: because it was not scheduled, or its event loops or its task executor were busy.
    public var lagAllowance: Duration = .seconds(10)
    /// Most transfers to clients at the same time, large and small. Beyond it a request is answered `429`.
    public var concurrentTransfers = 4096
    /// Bytes that all streaming transfers together may have under way in memory.
    public var streamingBytes = 24 * 1024 * 1024
    /// Bytes of all held bodies together. Beyond it they are streamed with their end withheld.
    public var heldBytes = 16 * 1024 * 1024
    /// Threads that hash large bodies; nil for one per core, at most four.
    public var hashingThreads: Int?

    /// The default bounds.
    public init() { self.init(peerPort: 0) }

    /// The default bounds, with the port of the peers' registries.
    package init(peerPort: Int) {
        peers = PeerClientConfiguration(port: peerPort)
    }

    /// The bounds with values that would make no sense replaced by the nearest ones that do.
    func clamped() -> MirrorConfiguration {
        var result = self
        result.resolveTimeout = max(resolveTimeout, .zero)
        result.resolveRetries = min(max(resolveRetries, 1), 64)
        result.heldContentBytes = min(max(heldContentBytes, 0), 64 * 1024 * 1024)
        result.withheldBytes = min(max(withheldBytes, 1), 4 * 1024 * 1024)
        result.fruitlessResumes = max(fruitlessResumes, 1)
        result.resumeBytes = max(resumeBytes, 1)
        result.streamingBytes = max(streamingBytes, 1024 * 1024)
        result.heldBytes = max(heldBytes, 0)
        result.lagAllowance = max(lagAllowance, .zero)
        result.concurrentTransfers = max(concurrentTransfers, 1)
        return result
    }
}
