import Foundation
import HTTPServer
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1

/// Keeps the last requests of the registry, for `GET /debug/requests`.
package final class RequestLog: RequestObserver {
    /// One request, as the page has it. Names and meanings stay; new ones may come.
    package struct Entry: Sendable, Hashable, Codable {
        /// Counts the requests since the start, from 1.
        package var number: UInt64
        /// When it ended, in seconds since 1970.
        package var time: Double
        /// The client's IP address.
        package var client: String?
        package var method: String
        /// The request target, at most ``targetLimit`` bytes of it.
        package var target: String
        package var handler: String
        /// The status; nil when the client left before there was one.
        package var status: UInt?
        /// Bytes of body sent.
        package var bytes: Int64
        /// Milliseconds from the request to the end of the response.
        package var milliseconds: Double
        /// Whether the response was sent to its end.
        package var isComplete: Bool
        /// Why: `peer` for content of a peer, `local` when only the store was asked, else the reason of a miss as the metrics
        /// have it; nil for what needs none.
        package var reason: String?

        /// What came of it: `served`, `not found`, `refused`, `broken off` or `failed`.
        package var outcome: String {
            switch status {
            case nil: "broken off"
            case .some(200..<400): isComplete ? "served" : "broken off"
            case 404: "not found"
            case .some(401), .some(403), .some(429): "refused"
            default: "failed"
            }
        }

        /// The outcome with its figures, for a person.
        package var outcomeText: String {
            "\(outcome)\(status.map { " (\($0))" } ?? ""), \(bytes) bytes in \((milliseconds * 10).rounded() / 10) ms"
        }
    }

    /// The reason of what a peer gave.
    static let peerReason = "peer"
    /// The reason of a miss when no peer is asked: the request is a peer's, or the node has no peers.
    static let localReason = "local"
    /// Requests kept.
    package static let limit = 100
    private static let targetLimit = 512

    /// A request whose texts are made when the page is asked for, so that recording costs little.
    private struct Pending: Sendable {
        var number: UInt64
        var time: Double
        var summary: RequestSummary

        /// The address; an IPv4 one without the prefix that a socket for both families gives it.
        private static func client(_ address: SocketAddress?) -> String? {
            let text = address?.ipAddress
            guard let text, text.hasPrefix("::ffff:"), text.utf8.contains(UInt8(ascii: ".")) else { return text }
            return String(text.dropFirst(7))
        }

        var entry: Entry {
            let (seconds, attoseconds) = summary.duration.components
            return Entry(
                number: number, time: time, client: Self.client(summary.remoteAddress), method: summary.method.rawValue,
                target: String(decoding: summary.target.utf8.prefix(RequestLog.targetLimit), as: UTF8.self),
                handler: summary.handler, status: summary.status?.code, bytes: summary.bodyBytes,
                milliseconds: Double(seconds) * 1000 + Double(attoseconds) / 1e15, isComplete: summary.isComplete,
                reason: summary.reason)
        }
    }

    private struct State {
        var count: UInt64 = 0
        /// A ring: request `n` is at `(n - 1) % limit`.
        var ring: [Pending] = []
    }

    private let next: any RequestObserver
    private let state = NIOLockedValueBox(State())

    /// - Parameter next: receives everything, too.
    package init(_ next: any RequestObserver) {
        self.next = next
    }

    package func requestBegan(handler: String) { next.requestBegan(handler: handler) }

    package func requestEnded(_ summary: RequestSummary) {
        next.requestEnded(summary)
        guard summary.handler != "livez", summary.handler != "readyz" else { return }
        let time = Date().timeIntervalSince1970
        state.withLockedValue { state in
            let pending = Pending(number: state.count + 1, time: time, summary: summary)
            if state.ring.count < Self.limit {
                state.ring.append(pending)
            } else {
                state.ring[Int(state.count % UInt64(Self.limit))] = pending
            }
            state.count += 1
        }
    }

    /// The last requests, oldest first.
    package var entries: [Entry] {
        state.withLockedValue { $0.ring }.sorted { $0.number < $1.number }.map(\.entry)
    }
}
