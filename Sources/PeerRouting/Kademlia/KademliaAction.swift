import Logging
import NIOCore

/// What a ``KademliaNode`` wants done by whoever connects it to a network.
enum KademliaAction: Sendable {
    /// Send `message` to a peer, connecting first where needed, and report the answer or the failure.
    case request(RequestID, KadContact, KadMessage)
    /// Announce to a peer that this node provides `keys`, in order, and report how it ended.
    case provide(BatchID, KadContact, [ContentKey])
    /// Tell a caller of a search about a provider.
    case found(LookupID, KadContact)
    /// Tell a caller that its search is over.
    case lookupEnded(LookupID)
    /// Write a log line.
    case log(Logger.Level, String, [String: String])
    /// A peer came into the routing table or went out of it: keep its connections when room is needed, or no longer.
    case memberChanged(PeerID, isMember: Bool)
    /// No peer is left, or the first was found: start, or stop, looking for somebody to join.
    case connectivityChanged(isOnline: Bool)
}

/// One request under way.
struct RequestID: Hashable, Sendable {
    let number: UInt64
}

/// One batch of announcements under way.
struct BatchID: Hashable, Sendable {
    let number: UInt64
}

/// One search under way.
struct QueryID: Hashable, Sendable {
    let number: UInt64
}

/// Why a request or a batch failed.
enum KademliaFailure: Error, Equatable, Sendable {
    /// The peer could not be connected to, broke the connection, or did not answer in time.
    case unreachable
    /// The peer refused the stream or the records, but is there.
    case refused
    /// This node could not try: it is stopping, or out of connections.
    case local
}

/// What a server does with a request.
enum KademliaReply: Equatable, Sendable {
    case answer(KadMessage)
    /// Nothing is sent; the next request may follow.
    case silence
    /// The request broke the rules: reset the stream.
    case reset(String)
}
