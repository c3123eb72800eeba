import PeerRoutingCore

/// Decides how a transfer goes on after a failure: the one place where that is decided.
///
/// A value type without I/O.
struct TransferRecovery: Sendable {
    struct Limits: Sendable {
        /// Most interruptions in a row without ``resumeBytes`` in between.
        var resumesWithoutProgress: Int
        /// Bytes after which an interruption counts as the first in a row.
        var resumeBytes: Int64
        /// Most restarts for lack of a peer that continues; twice as many for wrong content.
        var restarts: Int
    }

    /// What went wrong.
    enum Failure: Sendable, Hashable {
        /// The peer ended the body early or stalled, when all bytes before `offset` had been received.
        case interrupted(offset: Int64)
        /// No peer gave an acceptable response.
        ///
        /// - `isCachedLookup`: whether only the candidates of an earlier lookup were tried.
        /// - `hasBody`: whether a body is to be continued, of which bytes may have been received.
        case raceFailed(RaceMachine<PeerEndpoint>.FailureReason, isCachedLookup: Bool, hasBody: Bool)
        /// The response did not begin in time.
        case timedOut
        /// The complete body does not match the digest.
        case digestMismatch(sources: Int)
        /// The request has nothing to look up.
        case noKey
        /// The request names a tag, and tags are left to the registry.
        case tagsNotResolved
    }

    /// How the transfer goes on.
    enum Action: Sendable, Hashable {
        /// Start a race for the next byte; what was received is kept.
        case resume
        /// Drop the body and start a race for the first byte, without the peers that contributed to it.
        case restart
        /// End the transfer: with an error response, or with an incomplete body if the head was sent.
        case fail(FailureReason)
    }

    /// What is recorded against the peers whose bytes the body has.
    enum RecordedMismatch: Sendable, Hashable {
        /// They are not asked for this content again: one of several sent wrong bytes.
        case suspected
        /// Moreover it counts against the peer in general: all bytes were its own.
        case proven
    }

    struct Decision: Sendable, Hashable {
        var action: Action
        var recordedMismatch: RecordedMismatch?
    }

    /// Why a transfer failed. The description is the message of the error response and of the log.
    enum FailureReason: Sendable, Hashable, CustomStringConvertible {
        case noPeers
        case allPeersFailed
        case timedOut
        case interrupted(count: Int)
        case digestMismatch
        case noKey
        case tagsNotResolved

        var description: String {
            switch self {
            case .noPeers: "no peer provides this content"
            case .allPeersFailed: "all peers that provide this content failed"
            case .timedOut: "no peer delivered this content in time"
            case .interrupted(let count): "the transfer was interrupted \(count) times without progress"
            case .digestMismatch: "the content of the peers does not match its digest"
            case .tagsNotResolved: "tags are not resolved by peers (--resolve-tags=false)"
            case .noKey: "the request names neither a digest nor a tag with its registry"
            }
        }
    }

    private let limits: Limits
    private var resumesWithoutProgress = 0
    private var lastOffset: Int64
    private var restarts = 0
    private var sawLengthMismatch = false

    /// - Parameter offset: the bytes that have been received already.
    init(limits: Limits, offset: Int64 = 0) {
        self.limits = limits
        lastOffset = offset
    }

    /// A peer states another length of the content than that of the body under way: perhaps the body is the wrong one.
    mutating func lengthMismatchSeen() { sawLengthMismatch = true }

    /// Decides. Counts the failure, and the restart if it decides for one.
    ///
    /// - Parameter isHeadSent: whether the head of the response has been sent, so that the body can only be continued.
    mutating func decide(after failure: Failure, isHeadSent: Bool) -> Decision {
        let decision: Decision
        switch failure {
        case .interrupted(let offset):
            let madeProgress = offset - lastOffset >= limits.resumeBytes
            resumesWithoutProgress = madeProgress ? 1 : resumesWithoutProgress + 1
            lastOffset = offset
            if resumesWithoutProgress <= limits.resumesWithoutProgress { return Decision(action: .resume) }
            decision = withoutSuccessor(isHeadSent, else: .interrupted(count: resumesWithoutProgress))
        case .raceFailed(.deadline, _, _), .timedOut:
            decision = Decision(action: .fail(.timedOut))
        case .raceFailed(_, isCachedLookup: true, _):
            // Other peers may have the content since then.
            decision = Decision(action: .resume)
        case .raceFailed(let reason, isCachedLookup: false, let hasBody):
            let reason: FailureReason = reason == .noPeers ? .noPeers : .allPeersFailed
            decision = hasBody ? withoutSuccessor(isHeadSent, else: reason) : Decision(action: .fail(reason))
        case .digestMismatch(let sources):
            let restarts = !isHeadSent && self.restarts < limits.restarts * 2
            decision = Decision(
                action: restarts ? .restart : .fail(.digestMismatch),
                recordedMismatch: sources == 1 ? .proven : .suspected)
        case .noKey:
            decision = Decision(action: .fail(.noKey))
        case .tagsNotResolved:
            decision = Decision(action: .fail(.tagsNotResolved))
        }
        if decision.action == .restart {
            restarts += 1
            (resumesWithoutProgress, lastOffset, sawLengthMismatch) = (0, 0, false)
        }
        return decision
    }

    /// No peer continues the body. If peers state another length, it may have been wrong from the start.
    private func withoutSuccessor(_ isHeadSent: Bool, else reason: FailureReason) -> Decision {
        Decision(
            action: !isHeadSent && restarts < limits.restarts ? .restart : .fail(reason),
            recordedMismatch: sawLengthMismatch ? .suspected : nil)
    }
}
