import Logging
import NIOCore
import PeerRoutingCore

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Limits the rate of new connections from each source address: a token bucket for each. Loopback is exempt, as many
/// nodes may share it.
package struct AcceptLimiter: Sendable {
    private struct Bucket: Sendable {
        var tokens: Double
        var updated: NIODeadline
    }

    private let burst: Double
    private let rate: Double
    private let maximumSources: Int
    private var buckets: [IPAddress: Bucket] = [:]

    /// - Parameters:
    ///   - burst: Connections that may come at once; at least 1.
    ///   - rate: Connections a second after the burst; at least 0.
    ///   - maximumSources: Source addresses tracked at a time; at least 1. Beyond it full buckets are dropped, then those
    ///     used longest ago.
    package init(burst: Int, rate: Double, maximumSources: Int) {
        self.burst = Double(max(1, burst))
        self.rate = max(0, rate)
        self.maximumSources = max(1, maximumSources)
    }

    /// Source addresses tracked now.
    package var sources: Int { buckets.count }

    /// Whether one more connection from this source may be accepted now.
    package mutating func accepts(_ source: IPAddress, now: NIODeadline) -> Bool {
        guard let key = source.limitedSource else { return true }
        var bucket = refilled(buckets[key] ?? Bucket(tokens: burst, updated: now), now)
        let accepted = bucket.tokens >= 1
        if accepted { bucket.tokens -= 1 }
        if buckets[key] == nil, buckets.count >= maximumSources { makeRoom(now) }
        buckets[key] = bucket
        return accepted
    }

    private func refilled(_ bucket: Bucket, _ now: NIODeadline) -> Bucket {
        let seconds = Double((now - bucket.updated).nanoseconds) / 1e9
        return Bucket(tokens: min(burst, bucket.tokens + max(0, seconds) * rate), updated: now)
    }

    /// Drops full buckets, which are as good as none; then the half that was used longest ago.
    private mutating func makeRoom(_ now: NIODeadline) {
        buckets = buckets.filter { refilled($0.value, now).tokens < burst }
        guard buckets.count >= maximumSources else { return }
        for (source, _) in buckets.sorted(by: { $0.value.updated < $1.value.updated }).prefix(maximumSources / 2 + 1) {
            buckets[source] = nil
        }
    }
}

/// What a listening channel needs where descriptors may run out.
package enum AcceptPauses {
    /// Handlers for a listening channel: they wait before connections are accepted again when the process or the system has no
    /// more descriptors, instead of trying without a pause. Logged once a minute.
    ///
    /// - Parameter subject: What cannot be accepted, as the beginning of the log message.
    package static func handlers(_ subject: String, logger: Logger) -> [any ChannelHandler] {
        var isQuietUntil = NIODeadline.uptimeNanoseconds(0)
        let backoff = AcceptBackoffHandler(shouldForwardIOErrorCaught: false) { error in
            if error.errnoCode == EMFILE || error.errnoCode == ENFILE { DescriptorReserve.process.noneLeft() }
            let now = NIODeadline.now()
            if now >= isQuietUntil {
                isQuietUntil = now + .minutes(1)
                logger.warning("\(subject) cannot be accepted for now", metadata: ["error": "\(error)"])
            }
            return DescriptorReserve.interval
        }
        return [AcceptGateHandler(), backoff]
    }
}
