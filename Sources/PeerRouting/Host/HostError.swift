/// Why something asked of a ``Host`` failed.
public enum HostError: Error, Sendable, Hashable, CustomStringConvertible {
    /// Before ``Host/start()``.
    case notStarted
    /// During or after ``Host/shutdown()``.
    case shutDown
    /// No listen address can be used; says which and why.
    case cannotListen(String)
    /// The peer has no address that can be dialled.
    case noAddresses(PeerID?)
    /// All addresses failed lately and rest.
    case backingOff(PeerID?)
    /// No address answered; names each with its reason.
    case dialFailed(String)
    /// Another peer answered than was expected.
    case peerMismatch(expected: PeerID, found: PeerID)
    /// The other end is this host itself.
    case dialledSelf
    /// The connection ended before the answer.
    case connectionClosed(String)
    /// The peer does not speak the protocol.
    case protocolNotSupported(String)
    /// The peer reset the stream, or ended it without an answer.
    case streamReset(String)
    /// No answer in time.
    case timedOut(String)
    /// A bound of ``HostLimits`` was reached; names it.
    case limitReached(String)
    /// The answer could not be read.
    case badAnswer(String)

    /// What happened, for a log.
    public var description: String {
        switch self {
        case .notStarted: "the host has not been started"
        case .shutDown: "the host has been shut down"
        case .cannotListen(let reason): "cannot listen: \(reason)"
        case .noAddresses(let peer): "no address to dial \(peer.map(\.description) ?? "the peer")"
        case .backingOff(let peer): "dials of \(peer.map(\.description) ?? "the peer") failed lately: backing off"
        case .dialFailed(let reason): "dial failed: \(reason)"
        case .peerMismatch(let expected, let found): "peer \(expected) expected, \(found) found"
        case .dialledSelf: "dialled this host itself"
        case .connectionClosed(let reason): "connection closed: \(reason)"
        case .protocolNotSupported(let name): "the peer does not speak \(WireFormatError.quote(name))"
        case .streamReset(let reason): "stream ended: \(reason)"
        case .timedOut(let what): "timed out: \(what)"
        case .limitReached(let what): "limit reached: \(what)"
        case .badAnswer(let reason): "bad answer: \(reason)"
        }
    }
}
