import Metrics
import NIOCore
import OCIDistribution
import PeerRoutingCore
import PrometheusMetrics
import Synchronization

/// The metrics of the mirror, under the names of the original where they exist, and the ``TrafficLedger`` that counts the
/// same events for status pages.
///
/// Label values come from fixed sets, except the registry, for which see ``RegistryLabels``. All series of a label value
/// exist from its first use on, with 0.
final class MirrorMetrics: Sendable {
    /// The result of verifying a body.
    enum Verification: String, CaseIterable, Sendable {
        case verified, mismatch, partial, off
    }

    /// How a lookup of providers ended.
    enum LookupOutcome: String, CaseIterable, Sendable {
        /// It found a provider.
        case found
        /// It ended without.
        case empty
        /// It found none in the time that a request waits for it.
        case timeout
        /// The result of an earlier one was used.
        case cached
    }

    /// The names of failures of requests to peers.
    static let peerFailures = [
        "absent", "busy", "closed", "digest", "encoding", "length", "mismatch", "overloaded", "protocol", "range",
        "slow", "stalled", "status", "timeout", "type", "unreachable",
    ]

    /// The counters of one registry.
    final class RegistryCounters: Sendable {
        let hits: Counter
        let misses: Counter
        let missReasons: [MissReason: Counter]
        let receivedBytes: Counter
        let savedBytes: Counter
        let unverifiedBytes: Counter
        let servedBytes: Counter

        fileprivate init(_ registry: String, factory: any MetricsFactory) {
            func counter(_ name: String, _ labels: [(String, String)] = []) -> Counter {
                Counter(label: name, dimensions: [("registry", registry)] + labels, factory: factory)
            }
            func requests(_ cache: String) -> Counter {
                counter("spegel_mirror_requests_total", [("cache", cache), ("cache_type", cache)])
            }
            hits = requests("hit")
            misses = requests("miss")
            missReasons = Dictionary(
                uniqueKeysWithValues: MissReason.allCases.map {
                    ($0, counter("spegel_mirror_misses_total", [("reason", $0.rawValue)]))
                })
            receivedBytes = counter("spegel_mirror_received_bytes_total")
            savedBytes = counter("spegel_mirror_saved_bytes_total")
            unverifiedBytes = counter("spegel_mirror_unverified_bytes_total")
            servedBytes = counter("spegel_mirror_served_bytes_total")
        }
    }

    let traffic: TrafficLedger
    private let factory: any MetricsFactory
    private let registries: RegistryLabels
    private let counters = Mutex<[String: RegistryCounters]>([:])
    private let lastSuccess: Gauge
    private let lastSuccessTime = Atomic<UInt64>(0)
    private let resolveDuration: Metrics.Timer
    private let verifications: [Verification: Counter]
    private let lookups: [LookupOutcome: Counter]
    private let failures: [String: Counter]
    private let shared: Counter
    let hedges: Counter
    let resumes: Counter
    let attempts: Counter
    let disconnects: Counter
    let activeTransfers: Meter
    let dial: Metrics.Timer
    let firstByte: Metrics.Timer
    let body: Metrics.Timer
    private let hits = Atomic<Int>(0)
    private let misses = Atomic<Int>(0)

    init(
        factory: any MetricsFactory, router: String, registries: RegistryLabels = RegistryLabels(),
        traffic: TrafficLedger = TrafficLedger()
    ) {
        self.factory = factory
        self.registries = registries
        self.traffic = traffic
        lastSuccess = Gauge(label: "spegel_mirror_last_success_timestamp_seconds", factory: factory)
        resolveDuration = Metrics.Timer(
            label: "spegel_resolve_duration_seconds", dimensions: [("router", router)], factory: factory)
        verifications = factory.counters("spegel_mirror_verifications_total", "result", Verification.self)
        lookups = factory.counters("spegel_mirror_lookups_total", "outcome", LookupOutcome.self)
        failures = Dictionary(
            uniqueKeysWithValues: Self.peerFailures.map {
                (
                    $0,
                    Counter(
                        label: "spegel_mirror_peer_failures_total", dimensions: [("reason", $0)], factory: factory)
                )
            })
        shared = Counter(label: "spegel_mirror_shared_requests_total", factory: factory)
        hedges = Counter(label: "spegel_mirror_hedges_total", factory: factory)
        resumes = Counter(label: "spegel_mirror_resumes_total", factory: factory)
        attempts = Counter(label: "spegel_mirror_peer_requests_total", factory: factory)
        disconnects = Counter(label: "spegel_mirror_client_disconnects_total", factory: factory)
        activeTransfers = Meter(label: "spegel_mirror_transfers_inflight", factory: factory)
        activeTransfers.set(0)
        dial = Metrics.Timer(label: "spegel_mirror_peer_dial_seconds", factory: factory)
        firstByte = Metrics.Timer(label: "spegel_mirror_peer_first_byte_seconds", factory: factory)
        body = Metrics.Timer(label: "spegel_mirror_body_seconds", factory: factory)
        registries.onLabel { [weak self] label in _ = self?.counters(for: label) }
    }

    private func counters(for label: String) -> RegistryCounters {
        counters.withLock { counters in
            if let found = counters[label] { return found }
            let new = RegistryCounters(label, factory: factory)
            counters[label] = new
            return new
        }
    }

    private func counters(of request: DistributionRequest) -> RegistryCounters {
        counters(for: registries.label(for: request.registry))
    }

    /// Hits, misses, and the time of the last hit (seconds since 1970, 0 for never).
    var summary: (hits: Int, misses: Int, lastSuccess: Double) {
        (
            hits.load(ordering: .relaxed), misses.load(ordering: .relaxed),
            Double(bitPattern: lastSuccessTime.load(ordering: .relaxed))
        )
    }

    // MARK: Requests of clients

    /// Requests of clients ended.
    ///
    /// - Parameter outcome: nil if the clients disconnected before.
    func ended(_ request: DistributionRequest, clients: Int, _ outcome: RequestOutcome?) {
        switch outcome {
        case .hit(let bytes, let isVerified): hit(request, clients: clients, bytes: bytes, isVerified: isVerified)
        case .miss(let reason): miss(request, clients: clients, reason: reason)
        case nil: disconnects.increment()
        }
    }

    /// Requests were answered by one transfer from peers.
    ///
    /// - Parameters:
    ///   - bytes: bytes of body that each client received.
    ///   - isVerified: whether their digest was verified.
    func hit(_ request: DistributionRequest, clients: Int, bytes: Int64, isVerified: Bool) {
        guard clients > 0 else { return }
        let counters = counters(of: request)
        counters.hits.increment(by: clients)
        if clients > 1 { shared.increment(by: clients - 1) }
        (isVerified ? counters.savedBytes : counters.unverifiedBytes).increment(by: bytes * Int64(clients))
        hits.add(clients, ordering: .relaxed)
        let now = WallClock.secondsSince1970
        lastSuccessTime.store(now.bitPattern, ordering: .relaxed)
        lastSuccess.record(now)
        traffic.hit(request, clients: clients, bytes: bytes, isVerified: isVerified)
    }

    /// Requests were not answered with the content of a peer.
    func miss(_ request: DistributionRequest, clients: Int, reason: MissReason) {
        guard clients > 0 else { return }
        let counters = counters(of: request)
        counters.missReasons[reason]?.increment(by: clients)
        // What a filter forbids is not a miss of the mirror.
        if reason != .filtered {
            counters.misses.increment(by: clients)
            misses.add(clients, ordering: .relaxed)
        }
        traffic.miss(request, clients: clients, reason: reason)
    }

    /// Local content was given to a peer.
    ///
    /// - Parameter address: the peer's IP address.
    func served(_ request: DistributionRequest, bytes: Int64, to address: String) {
        counters(of: request).servedBytes.increment(by: bytes)
        traffic.served(request, bytes: bytes, to: address)
    }

    // MARK: Transfers

    /// A transfer starts; `TransferRecord.end()` is called at its end.
    func startTransfer(_ request: DistributionRequest) -> TransferRecord {
        traffic.startTransfer(request, receivedBytes: counters(of: request).receivedBytes)
    }

    /// A lookup found its first peer, or ended without.
    func resolved(after time: TimeAmount) { resolveDuration.recordNanoseconds(time.nanoseconds) }

    /// A lookup of providers ended.
    func lookup(_ outcome: LookupOutcome) { lookups[outcome]?.increment() }

    /// A body was relayed, verified or not.
    func verification(_ outcome: Verification) { verifications[outcome]?.increment() }

    /// A request to a peer failed.
    ///
    /// - Parameter reason: one of ``peerFailures``.
    func peerFailed(_ peer: PeerEndpoint, _ reason: String) {
        failures[reason]?.increment()
        traffic.attemptEnded(peer.id, failure: reason)
    }

    /// A response of a peer was received to its end.
    func peerCompleted(_ peer: PeerEndpoint) { traffic.attemptEnded(peer.id, failure: nil) }
}

extension MetricsFactory {
    /// One counter for each value of a label.
    func counters<Value: CaseIterable & RawRepresentable & Hashable>(
        _ name: String, _ label: String, _ values: Value.Type
    ) -> [Value: Counter] where Value.RawValue == String {
        Dictionary(
            uniqueKeysWithValues: values.allCases.map {
                ($0, Counter(label: name, dimensions: [(label, $0.rawValue)], factory: self))
            })
    }
}

/// What is counted for a request of a client that was relayed to peers.
enum RequestOutcome: Sendable, Hashable {
    /// It was answered with the content of a peer.
    ///
    /// - `bytes`: the bytes of body that the client received.
    /// - `isVerified`: whether their digest was verified.
    case hit(bytes: Int64, isVerified: Bool)
    /// It was not.
    case miss(MissReason)
}

/// The failures of the attempts of one request, from which follows why it has no content.
struct FailureTally: Sendable {
    private var mismatch = false
    private var refused = false
    private var timeout = false
    private var unreachable = false

    /// - Parameter reason: one of ``MirrorMetrics/peerFailures``.
    mutating func add(_ reason: String) {
        switch reason {
        case "absent": break
        case "mismatch": mismatch = true
        case "unreachable": unreachable = true
        case "timeout", "stalled", "slow": timeout = true
        default: refused = true
        }
    }

    /// Why no candidate gave the content: what says most about a fault. Wrong bytes come first, then a peer that was asked in
    /// vain, then one that could not be reached, and last those that do not have the content.
    var missReason: MissReason {
        if mismatch { return .mismatch }
        if refused { return .refused }
        if timeout { return .timeout }
        if unreachable { return .unreachable }
        return .absent
    }

    /// Why a transfer that failed has no content.
    ///
    /// - Parameter isHeadSent: whether the client received a part of the response.
    func missReason(of reason: TransferRecovery.FailureReason, isHeadSent: Bool) -> MissReason {
        switch reason {
        case .digestMismatch: .mismatch
        case .interrupted: .interrupted
        case .timedOut: isHeadSent ? .interrupted : .timeout
        case .tagsNotResolved: .filtered
        case .noPeers, .allPeersFailed, .noKey: isHeadSent ? .interrupted : missReason
        }
    }
}
