/// A request that came in on a message protocol.
public struct InboundMessage: Sendable {
    /// Who sent it, as proved by the connection's handshake.
    public let peer: PeerID
    /// Where the connection comes from.
    public let remoteAddress: IPAddress
    /// The message without its length prefix.
    public let payload: [UInt8]
}

/// The one answer to an ``InboundMessage``; only the first call counts. May be used from any thread.
///
/// Until one of the calls is made, the stream's next message is not read.
public struct MessageReply: Sendable {
    enum Outcome: Sendable {
        case response([UInt8])
        case silence
        case reset(String)
    }

    let finish: @Sendable (Outcome) -> Void

    /// Sends an answer.
    public func respond(_ message: [UInt8]) { finish(.response(message)) }
    /// Sends nothing and goes on with the stream's next message.
    public func stayingSilent() { finish(.silence) }
    /// Resets the stream; the reason goes to the log.
    public func reset(_ reason: String) { finish(.reset(reason)) }
}

/// Answers the requests of one protocol. Called on the connection's event loop, in order for one stream: must not
/// block; slow work goes elsewhere and calls the reply later.
public typealias MessageHandler = @Sendable (_ message: InboundMessage, _ reply: MessageReply) -> Void
