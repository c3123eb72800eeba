/// Why a request to a peer came to nothing.
enum PeerFailure: Error, Sendable, Hashable, CustomStringConvertible {
    /// No connection came about, or the peer was found to be down a moment ago.
    case unreached
    /// So many requests wait for connections that no other may, or this one waited too long.
    case overloaded
    /// The peer closed the connection without an answer.
    case closedBeforeHead
    /// The peer closed the connection within the body.
    case closedEarly
    /// No answer came in time.
    case firstByteTimeout
    /// The body stopped coming, or came too slowly.
    case stalled
    /// What came is not HTTP.
    case broken(PeerProtocolError)

    /// A short name with few values, for metrics.
    var label: String {
        switch self {
        case .unreached: "unreachable"
        case .overloaded: "overloaded"
        case .closedBeforeHead, .closedEarly: "closed"
        case .firstByteTimeout: "timeout"
        case .stalled: "stalled"
        case .broken: "protocol"
        }
    }

    var description: String {
        switch self {
        case .unreached: "the peer cannot be reached"
        case .overloaded: "too many requests wait for a connection to the peer"
        case .closedBeforeHead: "the peer closed the connection without an answer"
        case .closedEarly: "the peer closed the connection within the body"
        case .firstByteTimeout: "the peer did not answer in time"
        case .stalled: "the peer stopped sending"
        case .broken(let error): error.description
        }
    }
}
