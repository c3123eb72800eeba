import Logging
import Metrics
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// What the peers answer.
extension MirrorExchange: PeerExchangeDelegate {
    func exchange(_ exchange: PeerExchange, received head: PeerResponseHead) {
        guard case .racing = phase, let index = attempts.firstIndex(where: { $0.exchange === exchange }) else { return }
        let now = NIODeadline.now()
        let time = clock.now - (exchange.sentAt ?? attempts[index].startedAt)
        let peer = exchange.peer.id
        switch plan.judge(head) {
        case .accept(let acceptance):
            loop.latency.record(time, now: now)
            context.metrics.firstByte.recordNanoseconds(time.nanoseconds)
            context.directory.withScoreboard { $0.answered(peer, after: time, now: now) }
            attempts[index].acceptance = acceptance
            if isManifest, let type = head.contentType { manifestType = MediaType(statedManifestType: type).rawValue }
            perform(race.answered(attempts[index].id))
        case .busy:
            context.directory.withScoreboard { $0.penalise(peer, .busy, now: now) }
            exchange.cancel()
            fail(exchange, .busy, reason: "busy")
        case .unsatisfiable(let size):
            unsatisfiedSize = size
            exchange.cancel()
            fail(exchange, .refused, reason: "range")
        case .reject(let rejection):
            exchange.cancel()
            context.logger.debug(
                "answer of a peer is not taken",
                metadata: ["key": "\(key)", "peer": "\(peer)", "reason": "\(rejection)"])
            switch rejection {
            case .wrongLength, .status(416): sawOtherLength = sawOtherLength || !contributors.isEmpty
            default: break
            }
            if rejection != .status(404) {
                context.directory.withScoreboard { $0.penalise(peer, .brokeOff, now: now) }
            }
            fail(exchange, .refused, reason: rejection.label)
        }
    }

    func exchange(_ exchange: PeerExchange, received body: ByteBuffer) {
        guard case .transferring(let current) = phase, current === exchange else { return }
        take(body)
        // A peer that ignored the range sends more than is wanted.
        if plan.hasSurplus { surplus(exchange) }
    }

    private func surplus(_ exchange: PeerExchange) {
        gaveAll(exchange)
        exchange.cancel()
        bodyIsComplete()
    }

    func exchangeReadCompleted(_ exchange: PeerExchange) {
        guard case .transferring(let current) = phase, current === exchange else { return }
        readMore()
    }

    func exchangeEnded(_ exchange: PeerExchange) {
        guard case .transferring(let current) = phase, current === exchange else {
            // An answer without body that lost.
            if case .racing = phase { fail(exchange, .refused, reason: "closed") }
            return
        }
        guard plan.isComplete else { return resume(after: .closedEarly, exchange) }
        gaveAll(exchange)
        bodyIsComplete()
    }

    private func gaveAll(_ exchange: PeerExchange) {
        _ = remove { $0.exchange === exchange }
        context.directory.withScoreboard { $0.completed(exchange.peer.id, now: .now()) }
    }

    func exchange(_ exchange: PeerExchange, failed failure: PeerFailure) {
        switch phase {
        case .racing:
            let peer = exchange.peer.id
            switch failure {
            case .unreached:
                fail(exchange, .unreached, reason: failure.label)
            case .overloaded, .closedBeforeHead:
                fail(exchange, .busy, reason: failure.label)
            case .firstByteTimeout, .stalled, .closedEarly, .broken:
                let penalty: PeerScoreboard.Penalty = failure == .firstByteTimeout ? .slow : .brokeOff
                context.directory.withScoreboard { $0.penalise(peer, penalty, now: .now()) }
                fail(exchange, .refused, reason: failure.label)
            }
        case .transferring(let current) where current === exchange:
            resume(after: failure, exchange)
        case .transferring, .checking, .done:
            break
        }
    }
}

extension TransferPlan.Rejection {
    /// A short name with few values, for metrics.
    var label: String {
        switch self {
        case .status(404): "absent"
        case .status: "status"
        case .noLength, .wrongLength: "length"
        case .encoded: "encoding"
        case .wrongDigest, .noDigest: "digest"
        case .wrongType: "type"
        case .wrongRange, .ignoresRange: "range"
        }
    }
}
