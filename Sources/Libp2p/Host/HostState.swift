import NIOCore
import ResourceLimits

/// The state of a ``Host``, which its lock protects: values that each have one subject, and the changes that concern two.
struct HostState: Sendable {
    enum Phase: Sendable {
        case idle, running, stopped
    }

    var phase = Phase.idle
    var handlers = HostHandlers()
    var listening = ListenAddresses()
    var channels = OpenChannels()
    var accepting: InboundAdmission
    var connections: ConnectionTable
    var dials: DialTable
    var addressBook: AddressBook

    init(limits: HostLimits) {
        accepting = InboundAdmission(limits: limits)
        connections = ConnectionTable(limits: limits)
        dials = DialTable(limit: limits.dials)
        addressBook = AddressBook(limits: limits)
    }

    /// - Throws: ``HostError/notStarted`` or ``HostError/shutDown`` unless the host is running.
    func requireRunning() throws(HostError) {
        switch phase {
        case .idle: throw HostError.notStarted
        case .running: break
        case .stopped: throw HostError.shutDown
        }
    }

    /// Adds a secured connection.
    ///
    /// - Returns: Connections that have been removed for it and are to be closed.
    /// - Throws: ``HostError/shutDown``, or ``HostError/limitReached(_:)`` when no connection can be closed for it.
    mutating func add(_ connection: ConnectionHandle) throws(HostError) -> [ConnectionHandle] {
        try requireRunning()
        let surplus = try connections.surplus(for: connection.peer, at: connection.remoteAddress)
        for other in surplus { remove(other) }
        connections.add(connection)
        addressBook.connected(connection.peer)
        return surplus
    }

    /// Removes a connection if it is there.
    ///
    /// - Returns: True when it was the last one to its peer.
    @discardableResult
    mutating func remove(_ connection: ConnectionHandle) -> Bool {
        guard connections.remove(connection) else { return false }
        addressBook.disconnected(connection.peer, now: .now())
        return true
    }
}

/// The protocols that a host serves and the receiver of its events.
struct HostHandlers: Sendable {
    private var messages: [String: MessageHandler] = [:]
    /// Receives the host's events.
    var event: (@Sendable (HostEvent) -> Void)?

    /// The message protocols, in a fixed order.
    var protocolIDs: [String] { messages.keys.sorted() }

    subscript(protocolID: String) -> MessageHandler? {
        get { messages[protocolID] }
        set { messages[protocolID] = newValue }
    }
}

/// What ``Host/shutdown()`` has to close.
struct OpenChannels: Sendable {
    private var listeners: [any Channel] = []
    /// All connections, secured or not.
    private var connections: [ObjectIdentifier: any Channel] = [:]
    private var maintenance: RepeatedTask?

    /// Channels of connections that are open or being made.
    var connectionCount: Int { connections.count }
    var hasListeners: Bool { !listeners.isEmpty }
    var connectionChannels: [any Channel] { Array(connections.values) }

    mutating func addListener(_ channel: any Channel) { listeners.append(channel) }
    mutating func setMaintenance(_ task: RepeatedTask) { maintenance = task }
    mutating func add(_ channel: any Channel) { connections[ObjectIdentifier(channel)] = channel }
    mutating func remove(_ channel: ObjectIdentifier) { connections[channel] = nil }

    /// The listeners and the repeated task, which are thereby forgotten.
    mutating func takeListeners() -> (channels: [any Channel], maintenance: RepeatedTask?) {
        defer { (listeners, maintenance) = ([], nil) }
        return (listeners, maintenance)
    }
}

/// Limits the connections that come in: those that are not secured yet, in all and of each source, and the rate of each
/// source.
struct InboundAdmission: Sendable {
    private let limits: HostLimits
    private var rate: AcceptLimiter
    /// By source, without loopback.
    private var bySource = SourceCounts<IPAddress>()

    /// Connections that were accepted and are not secured yet.
    private(set) var unsecured = 0

    init(limits: HostLimits) {
        self.limits = limits
        rate = AcceptLimiter(
            burst: limits.acceptBurst, rate: limits.acceptRate, maximumSources: limits.acceptSources)
    }

    /// Counts a new connection, until ``secured(_:)``.
    ///
    /// - Throws: ``HostError/limitReached(_:)``.
    mutating func admit(_ remote: IPAddress, now: NIODeadline) throws(HostError) {
        guard unsecured < limits.unsecuredConnections else {
            throw HostError.limitReached("connections not yet secured")
        }
        if let source = limits.source(of: remote) {
            guard bySource[source] < limits.unsecuredPerSource else {
                throw HostError.limitReached("connections from \(remote) not yet secured")
            }
            guard rate.accepts(remote, now: now) else { throw HostError.limitReached("new connections from \(remote)") }
            bySource.add(source)
        }
        unsecured += 1
    }

    /// A connection that was admitted has been secured, or closed before that.
    mutating func secured(_ remote: IPAddress) {
        unsecured -= 1
        bySource.remove(limits.source(of: remote))
    }
}

/// The dials under way: at most one race of addresses for each peer, and a limit for all.
struct DialTable: Sendable {
    private let limit: Int
    private var byPeer: [PeerID: DialRace] = [:]
    private var count = 0

    init(limit: Int) {
        self.limit = limit
    }

    /// The dials of a peer's addresses that are under way.
    func race(for peer: PeerID) -> DialRace? { byPeer[peer] }

    /// - Throws: ``HostError/limitReached(_:)`` when there is no room for another race.
    func requireRoom() throws(HostError) {
        guard count < limit else { throw HostError.limitReached("dials under way") }
    }

    /// - Parameter peer: The peer expected; nil when any is accepted, in which case nothing shares the race.
    mutating func add(_ race: DialRace, for peer: PeerID?) {
        if let peer { byPeer[peer] = race }
        count += 1
    }

    /// A race that was added has ended.
    mutating func remove(for peer: PeerID?) {
        if let peer { byPeer[peer] = nil }
        count -= 1
    }
}
