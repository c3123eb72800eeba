import NIOCore

/// The constants of one Kademlia node. The defaults are Spegel's and must agree across a cluster where noted.
struct KademliaConfiguration: Sendable {
    /// Peers per bucket, keepers per record, peers per answer. The same in the whole cluster.
    var k = 20
    var query = IterativeQuery.Limits()
    var store = ProviderStore.Limits()
    var lookup = LookupTable.Limits()
    var provide = ProvideSchedule.Timing()
    /// Keys this node may keep announced: what other nodes take from one provider.
    var ownKeys = 100_000
    /// Between rounds that look for new neighbours and check silent ones; each round is shifted by up to a tenth.
    var refreshInterval: TimeAmount = .minutes(10)
    /// Connected peers outside a table of at most ``smallTable`` entries are checked again so often.
    var recheckInterval: TimeAmount = .minutes(2)
    /// See ``recheckInterval``.
    var smallTable = 10
    /// Wait before the next search for own neighbours when one found nobody.
    var selfLookupRetry: TimeAmount = .seconds(2)
    /// Entries silent for so long are asked whether they are there.
    var silence: TimeAmount = .minutes(15)
    /// A search that takes longer ends with what it has.
    var queryDeadline: TimeAmount = .seconds(30)
    /// Searches at once; a caller beyond is answered from what is known.
    var queries = 512
    /// Liveness checks at once; what is beyond is checked when the peer shows up again.
    var checks = 256
    /// Searches at once on behalf of announcements.
    var provideQueries = 4
    /// Peers that are being sent records at once.
    var provideBatches = 20
    /// Records in one batch to a peer.
    var batchSize = 256
    /// Own keys being announced at once; the others wait in the schedule.
    var keysInFlight = 2000
    /// How long is waited before each further try of a peer that was evicted. The time since the eviction doubles with each
    /// try, so that a peer that restarts is found again within twice the time it was away, and at least two seconds.
    var formerPeerRetries: [TimeAmount] = [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].map { .seconds($0) }
    /// Evicted peers that are tried again.
    var formerPeers = 64
}
