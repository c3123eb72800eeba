import NIOCore

/// What a ``Host`` keeps under its lock.
struct HostState: Sendable {
    enum Phase: Sendable {
        case idle, running, stopped
    }

    struct Identified: Sendable {
        var protocols: [String]
        var agentVersion: String
    }

    var phase = Phase.idle
    var messageHandlers: [String: MessageHandler] = [:]
    var eventHandler: (@Sendable (HostEvent) -> Void)?
    var listeners: [any Channel] = []
    var addressCheck: RepeatedTask?
    var addresses = ListenAddresses()
    var advertised: [Multiaddr] = []
    /// Counts the changes of `advertised`.
    var addressVersion: UInt64 = 0

    /// All channels, secured or not, so that shutting down leaves none.
    var channels: [ObjectIdentifier: any Channel] = [:]
    var unsecured = 0
    var connections: [PeerID: [ConnectionHandle]] = [:]
    var connectionCount = 0
    var identified: [PeerID: Identified] = [:]

    var book: AddressBook
    var backOff: DialBackOff
    var acceptLimiter: AcceptLimiter
    var dials: [PeerID: DialRace] = [:]
    var dialCount = 0

    init(limits: HostLimits) {
        book = AddressBook(limits: limits)
        backOff = DialBackOff(limits: limits)
        acceptLimiter = AcceptLimiter(limits: limits)
    }

    /// The connection to close so that there is room: the one idle longest without streams, of one peer or of all.
    func longestIdle(of peer: PeerID? = nil, includingBusy: Bool) -> ConnectionHandle? {
        let candidates = peer.map { connections[$0] ?? [] } ?? connections.values.flatMap { $0 }
        return candidates.filter { includingBusy || $0.streamCount == 0 }.min { left, right in
            (left.streamCount == 0 ? 0 : 1, left.lastActive) < (right.streamCount == 0 ? 0 : 1, right.lastActive)
        }
    }
}
