import HTTPServer
import Metrics
import NIOHTTP1
import Synchronization

/// Counts the requests of a server: durations, sizes and requests under way.
///
/// Handlers and status codes come from the server, so they are few; methods that are not common count as `OTHER`. The series
/// of usual responses exist from the start.
public final class HTTPMetrics: RequestObserver {
    private struct Key: Hashable {
        var handler: String
        var method: String
        var code: UInt
    }

    private struct Pair {
        let duration: Metrics.Timer
        let size: Recorder
    }

    private struct State {
        var pairs: [Key: Pair] = [:]
        var inflight: [String: Meter] = [:]
    }

    private let factory: any MetricsFactory
    private let state = Mutex(State())

    /// Counts into `factory`; nil for the factory the process was given.
    public init(factory: (any MetricsFactory)? = nil) {
        self.factory = factory ?? MetricsSystem.factory
        for (handler, codes) in Self.usual {
            meter(handler).set(0)
            for code in codes {
                _ = pair(Key(handler: handler, method: "GET", code: code))
                if code != 206 { _ = pair(Key(handler: handler, method: "HEAD", code: code)) }
            }
        }
    }

    /// The responses that a healthy server gives: their series exist from the start, with 0.
    private static let usual: [(handler: String, codes: [UInt])] = [
        ("v2", [200]), ("manifest", [200, 404]), ("blob", [200, 206, 404]), ("tags", [200, 404]), ("livez", [200]),
        ("readyz", [200, 500]), ("unknown", [404]),
    ]

    /// See `RequestObserver.requestBegan(handler:)`.
    public func requestBegan(handler: String) {
        meter(handler).increment()
    }

    /// See `RequestObserver.requestEnded(_:)`.
    public func requestEnded(_ summary: RequestSummary) {
        if summary.handler != "invalid" { meter(summary.handler).decrement() }
        let key = Key(
            handler: summary.handler, method: Self.method(summary.method),
            // 499, as nginx has it, for a client that disconnected before there was a status.
            code: summary.status?.code ?? 499)
        let pair = pair(key)
        pair.duration.recordNanoseconds(summary.duration.nanosecondsClamped)
        pair.size.record(summary.bodyBytes)
    }

    private func pair(_ key: Key) -> Pair {
        state.withLock { state in
            if let pair = state.pairs[key] { return pair }
            let labels = [("handler", key.handler), ("method", key.method), ("code", "\(key.code)")]
            let pair = Pair(
                duration: Metrics.Timer(
                    label: "http_request_duration_seconds", dimensions: labels, factory: factory),
                size: Recorder(
                    label: "http_response_size_bytes", dimensions: labels, aggregate: true, factory: factory))
            state.pairs[key] = pair
            return pair
        }
    }

    private func meter(_ handler: String) -> Meter {
        state.withLock { state in
            if let meter = state.inflight[handler] { return meter }
            let meter = Meter(label: "http_requests_inflight", dimensions: [("handler", handler)], factory: factory)
            state.inflight[handler] = meter
            return meter
        }
    }

    private static func method(_ method: HTTPMethod) -> String {
        switch method {
        case .GET, .HEAD, .POST, .PUT, .PATCH, .DELETE, .OPTIONS: method.rawValue
        default: "OTHER"
        }
    }
}

extension Duration {
    /// Nanoseconds; the largest number for a duration that does not fit.
    fileprivate var nanosecondsClamped: Int64 {
        let (seconds, attoseconds) = components
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? .max : whole + attoseconds / 1_000_000_000
    }
}
