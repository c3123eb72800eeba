import Metrics
import NIOCore
import PrometheusMetrics
import Synchronization

/// The metrics of the mirror, under the names of the original where they exist.
///
/// Label values come from fixed sets, except the registry, of which at most ``registryLimit`` are distinguished.
final class MirrorMetrics: Sendable {
    /// Registries counted by name; the others are counted as `other`.
    static let registryLimit = 100

    /// The result of verifying a body.
    enum Verification: String, CaseIterable, Sendable {
        case verified, mismatch, partial, off
    }

    private struct Pair {
        let hit: Counter
        let miss: Counter
    }

    private let factory: any MetricsFactory
    private let requests = Mutex<[String: Pair]>([:])
    private let lastSuccess: Gauge
    private let lastSuccessTime = Atomic<UInt64>(0)
    private let resolveDuration: Metrics.Timer
    private let verifications: [Verification: Counter]
    private let failures = Mutex<[String: Counter]>([:])
    private let shared: Counter
    let hedges: Counter
    let resumes: Counter
    let receivedBytes: Counter
    let attempts: Counter
    let activeTransfers: Meter
    let firstByte: Metrics.Timer
    private let hits = Atomic<Int>(0)
    private let misses = Atomic<Int>(0)

    init(factory: any MetricsFactory, router: String) {
        self.factory = factory
        lastSuccess = Gauge(label: "spegel_mirror_last_success_timestamp_seconds", factory: factory)
        resolveDuration = Metrics.Timer(
            label: "spegel_resolve_duration_seconds", dimensions: [("router", router)], factory: factory)
        verifications = Dictionary(
            uniqueKeysWithValues: Verification.allCases.map { outcome in
                (
                    outcome,
                    Counter(
                        label: "spegel_mirror_verifications_total", dimensions: [("result", outcome.rawValue)],
                        factory: factory)
                )
            })
        shared = Counter(label: "spegel_mirror_shared_requests_total", factory: factory)
        hedges = Counter(label: "spegel_mirror_hedges_total", factory: factory)
        resumes = Counter(label: "spegel_mirror_resumes_total", factory: factory)
        attempts = Counter(label: "spegel_mirror_peer_requests_total", factory: factory)
        receivedBytes = Counter(label: "spegel_mirror_received_bytes_total", factory: factory)
        activeTransfers = Meter(label: "spegel_mirror_transfers_inflight", factory: factory)
        firstByte = Metrics.Timer(label: "spegel_mirror_peer_first_byte_seconds", factory: factory)
    }

    /// Hits, misses, and the time of the last hit (seconds since 1970, 0 for never).
    var summary: (hits: Int, misses: Int, lastSuccess: Double) {
        (
            hits.load(ordering: .relaxed), misses.load(ordering: .relaxed),
            Double(bitPattern: lastSuccessTime.load(ordering: .relaxed))
        )
    }

    /// Requests were answered by one transfer from peers, or by none.
    func requests(_ count: Int, registry: String?, isHit: Bool) {
        let name = registry ?? ""
        let pair = requests.withLock { requests -> Pair in
            if let pair = requests[name] { return pair }
            let label = requests.count < Self.registryLimit ? name : "other"
            if let pair = requests[label] { return pair }
            let pair = Pair(hit: counter(label, "hit"), miss: counter(label, "miss"))
            requests[label] = pair
            return pair
        }
        if isHit {
            pair.hit.increment(by: count)
            if count > 1 { shared.increment(by: count - 1) }
            hits.add(count, ordering: .relaxed)
            let now = WallClock.secondsSince1970
            lastSuccessTime.store(now.bitPattern, ordering: .relaxed)
            lastSuccess.record(now)
        } else {
            pair.miss.increment(by: count)
            misses.add(count, ordering: .relaxed)
        }
    }

    /// A lookup found its first peer, or ended without.
    func resolved(after time: TimeAmount) { resolveDuration.recordNanoseconds(time.nanoseconds) }

    /// A body was relayed, verified or not.
    func verification(_ outcome: Verification) { verifications[outcome]?.increment() }

    /// A request to a peer failed.
    ///
    /// - Parameter reason: one of a fixed set.
    func peerFailed(_ reason: String) {
        let counter = failures.withLock { failures -> Counter in
            if let counter = failures[reason] { return counter }
            let counter = Counter(
                label: "spegel_mirror_peer_failures_total", dimensions: [("reason", reason)], factory: factory)
            failures[reason] = counter
            return counter
        }
        counter.increment()
    }

    private func counter(_ registry: String, _ cache: String) -> Counter {
        Counter(
            label: "spegel_mirror_requests_total",
            dimensions: [("registry", registry), ("cache", cache), ("cache_type", cache)], factory: factory)
    }
}
