import DequeModule
import Metrics
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import PeerRoutingCore
import PrometheusMetrics
import Synchronization

/// Counts what a node exchanges with peers and what that saves from the upstream: by registry, image and peer, over time,
/// and the transfers under way.
///
/// Events are per transfer and take a short lock; what is counted per chunk is an atomic number of the transfer. All counts
/// are limited: see ``TrafficAccounts/Limits``.
package final class TrafficLedger: Sendable {
    /// Most transfers that a snapshot lists.
    package static let listedTransfers = 100
    /// Most transfers that are remembered after their end.
    package static let keptTransfers = 100

    private struct State {
        var accounts: TrafficAccounts
        var transfers: [UInt64: TransferRecord] = [:]
        var recent: Deque<EndedTransfer> = []
        var names = PeerNames()
        var next: UInt64 = 0
        /// Counts the changes, so that nothing is written when there were none.
        var changes: UInt64 = 0
    }

    private let state: NIOLockedValueBox<State>
    private let clock: @Sendable () -> Double

    /// - Parameters:
    ///   - clock: the time of day in seconds since 1970.
    init(
        kept: TrafficAccounts.Kept? = nil, limits: TrafficAccounts.Limits = .init(),
        clock: @escaping @Sendable () -> Double = { WallClock.secondsSince1970 }
    ) {
        self.clock = clock
        state = NIOLockedValueBox(State(accounts: TrafficAccounts(now: clock(), kept: kept, limits: limits)))
    }

    private func update(_ change: (inout TrafficAccounts, Double) -> Void) {
        update { accounts, _, now in change(&accounts, now) }
    }

    private func update(_ change: (inout TrafficAccounts, inout PeerNames, Double) -> Void) {
        let now = clock()
        state.withLockedValue { state in
            state.changes &+= 1
            change(&state.accounts, &state.names, now)
        }
    }

    // MARK: Events

    /// Local content was given to a peer.
    ///
    /// - Parameter address: the peer's IP address.
    func served(_ request: DistributionRequest, bytes: Int64, to address: String) {
        update { $0.addGiven(bytes, to: address, subject: .init(request), now: $1) }
    }

    /// Requests of clients were answered with the content of a peer.
    ///
    /// - Parameters:
    ///   - bytes: the bytes that each of them received.
    ///   - isVerified: whether their digest was verified.
    func hit(_ request: DistributionRequest, clients: Int, bytes: Int64, isVerified: Bool) {
        var traffic = Traffic()
        traffic.hits = clients
        let (sum, _) = bytes.multipliedReportingOverflow(by: Int64(clients))
        if isVerified { traffic.savedBytes = sum } else { traffic.unverifiedBytes = sum }
        update { $0.add(traffic, to: .init(request), now: $1) }
    }

    /// Requests of clients were not answered with the content of a peer.
    func miss(_ request: DistributionRequest, clients: Int, reason: MissReason) {
        var traffic = Traffic()
        traffic.misses[reason.rawValue] = clients
        update { $0.add(traffic, to: .init(request), now: $1) }
    }

    /// An attempt at a peer ended.
    ///
    /// - Parameter failure: a short name of a fixed set; nil when the response was received to its end.
    func attemptEnded(_ peer: PeerID, failure: String?) {
        update { $0.recordOutcome(failure, of: $1.name(of: peer), now: $2) }
    }

    // MARK: Transfers

    /// A transfer starts; ``TransferRecord/end()`` is called at its end.
    ///
    /// - Parameter receivedBytes: counts the bytes as they come, too.
    func startTransfer(_ request: DistributionRequest, receivedBytes: Counter? = nil) -> TransferRecord {
        let now = clock()
        return state.withLockedValue { state in
            state.next += 1
            let record = TransferRecord(
                number: state.next, request: request, startedAt: now, counter: receivedBytes, ledger: self)
            state.transfers[state.next] = record
            return record
        }
    }

    fileprivate func taken(_ bytes: Int64, from peer: PeerEndpoint, for subject: TrafficAccounts.Subject) {
        update {
            $0.addTaken(
                bytes, from: $1.name(of: peer.id), address: $1.name(of: peer.address), subject: subject, now: $2)
        }
    }

    fileprivate func transferEnded(_ number: UInt64) {
        let now = clock()
        state.withLockedValue { state in
            // A transfer without a source was a miss, which the requests tell.
            guard let record = state.transfers.removeValue(forKey: number), record.hasSources else { return }
            if state.recent.count == Self.keptTransfers { state.recent.removeFirst() }
            state.recent.append(EndedTransfer(record: record, end: now))
        }
    }

    // MARK: Reading

    /// The counts and the transfers under way.
    package func snapshot() -> TrafficSnapshot {
        let now = clock()
        let (accounts, transfers, recent) = state.withLockedValue { ($0.accounts, $0.transfers, $0.recent) }
        var snapshot = accounts.snapshot(now: now)
        snapshot.transferCount = transfers.count
        snapshot.transfers = transfers.keys.sorted().prefix(Self.listedTransfers).compactMap {
            transfers[$0]?.snapshot
        }
        snapshot.recentTransfers = recent.map {
            var transfer = $0.record.snapshot
            transfer.end = $0.end
            return transfer
        }
        return snapshot
    }

    /// What is to be kept over restarts, with the number of changes up to now.
    var kept: (value: TrafficAccounts.Kept, changes: UInt64) {
        state.withLockedValue { ($0.accounts.kept, $0.changes) }
    }
}

/// The texts of peers, which take longer to make than everything else that is counted for a request.
private struct PeerNames: Sendable {
    /// Most names of a kind; then all are made anew.
    static let limit = 4096

    private var identities: [PeerID: String] = [:]
    private var addresses: [IPAddress: String] = [:]

    mutating func name(of peer: PeerID) -> String { Self.name(of: peer, in: &identities) }

    mutating func name(of address: IPAddress) -> String { Self.name(of: address, in: &addresses) }

    private static func name<Key: CustomStringConvertible>(of key: Key, in names: inout [Key: String]) -> String {
        if let name = names[key] { return name }
        if names.count >= limit { names.removeAll() }
        let name = key.description
        names[key] = name
        return name
    }
}

/// A transfer that is remembered after its end; its texts are made when a snapshot is.
private struct EndedTransfer: Sendable {
    var record: TransferRecord
    var end: Double
}

/// One transfer under way. Its event loop writes; snapshots read from any thread.
final class TransferRecord: Sendable {
    /// Most sources that are listed.
    private static let sourceLimit = 16

    private struct Sources {
        var current: PeerEndpoint?
        /// Bytes received before the current source.
        var receivedBefore: Int64 = 0
        var all: [(peer: PeerEndpoint, offset: Int64)] = []
    }

    private let number: UInt64
    private let subject: TrafficAccounts.Subject
    private let digest: Digest?
    private let startedAt: Double
    private let counter: Counter?
    private let ledger: TrafficLedger
    private let receivedBytes = Atomic<Int64>(0)
    private let offset = Atomic<Int64>(0)
    private let totalBytes = Atomic<Int64>(-1)
    private let clients = Atomic<Int>(1)
    private let sources = NIOLockedValueBox(Sources())

    fileprivate init(
        number: UInt64, request: DistributionRequest, startedAt: Double, counter: Counter?, ledger: TrafficLedger
    ) {
        self.counter = counter
        self.number = number
        subject = TrafficAccounts.Subject(request)
        digest = request.digest
        self.startedAt = startedAt
        self.ledger = ledger
    }

    /// Bytes of a body were received.
    ///
    /// - Parameter offset: bytes of the wanted body received so far.
    func received(_ bytes: Int, offset: Int64) {
        receivedBytes.wrappingAdd(Int64(bytes), ordering: .relaxed)
        self.offset.store(offset, ordering: .relaxed)
        counter?.increment(by: bytes)
    }

    /// A peer begins to give bytes of the body.
    ///
    /// - Parameters:
    ///   - offset: the first of them, counted from the beginning of the body.
    ///   - clients: the clients that wait.
    func sourceStarted(_ peer: PeerEndpoint, offset: Int64, totalBytes: Int64, clients: Int) {
        sourceEnded()
        self.clients.store(clients, ordering: .relaxed)
        self.totalBytes.store(totalBytes, ordering: .relaxed)
        sources.withLockedValue { sources in
            sources.current = peer
            if sources.all.count < Self.sourceLimit { sources.all.append((peer, offset)) }
        }
    }

    /// The peer that gave bytes has ended, in whatever way: counts what it gave.
    func sourceEnded() {
        let received = receivedBytes.load(ordering: .relaxed)
        let ended = sources.withLockedValue { sources -> (peer: PeerEndpoint, bytes: Int64)? in
            guard let current = sources.current else { return nil }
            defer {
                sources.current = nil
                sources.receivedBefore = received
            }
            return (current, received - sources.receivedBefore)
        }
        guard let ended else { return }
        ledger.taken(ended.bytes, from: ended.peer, for: subject)
    }

    /// The transfer has ended, in whatever way.
    func end() {
        sourceEnded()
        ledger.transferEnded(number)
    }

    fileprivate var hasSources: Bool { sources.withLockedValue { !$0.all.isEmpty } }

    fileprivate var snapshot: TrafficSnapshot.Transfer {
        let total = totalBytes.load(ordering: .relaxed)
        let sources = sources.withLockedValue { $0.all }.map {
            TrafficSnapshot.Source(
                peer: $0.peer.id.description, address: $0.peer.address.description, offset: $0.offset)
        }
        return TrafficSnapshot.Transfer(
            number: number, image: subject.image ?? "", reference: subject.tag ?? digest?.description ?? "",
            start: startedAt,
            bytes: offset.load(ordering: .relaxed), totalBytes: total < 0 ? nil : total,
            peers: sources.reduce(into: []) { if $0.last != $1.peer { $0.append($1.peer) } },
            clients: clients.load(ordering: .relaxed), sources: sources)
    }
}

extension TrafficAccounts.Subject {
    init(_ request: DistributionRequest) {
        self.init(registry: request.registry ?? "", repository: request.repository, tag: request.tag)
    }
}
