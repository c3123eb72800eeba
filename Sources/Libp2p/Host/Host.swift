import Logging
import NIOConcurrencyHelpers
import NIOCore
import ResourceLimits

/// A libp2p node: listens, dials, secures and multiplexes connections, and carries messages over them.
///
/// Register message handlers and the event handler, then call ``start()``. Supports TCP with multistream-select, Noise
/// XX, yamux, identify, identify push and ping.
package final class Host: Sendable {
    /// The configuration, as given.
    package let configuration: HostConfiguration

    let state: NIOLockedValueBox<HostState>
    let budget: ByteBudget
    let offersEarlyMuxer: Bool

    /// Makes a host; nothing is opened before ``start()``.
    package convenience init(configuration: HostConfiguration) {
        self.init(configuration: configuration, offersEarlyMuxer: true)
    }

    /// - Parameter offersEarlyMuxer: Whether muxers are offered inside the handshake; false only in tests of the other way.
    package init(configuration: HostConfiguration, offersEarlyMuxer: Bool) {
        self.configuration = configuration
        self.offersEarlyMuxer = offersEarlyMuxer
        state = NIOLockedValueBox(HostState(limits: configuration.limits))
        budget = ByteBudget(limit: configuration.limits.bufferedBytes)
    }

    /// This host's ID.
    package var peerID: PeerID { configuration.identity.peerID }

    /// Serves a protocol of varint-delimited messages. Only before ``start()``, as peers request identify once.
    package func registerMessageHandler(_ protocolID: String, handler: @escaping MessageHandler) {
        state.withLockedValue { state in
            precondition(state.phase == .idle, "handlers are registered before the host is started")
            state.handlers[protocolID] = handler
        }
    }

    /// Sets the receiver of events. Only before ``start()``. Called on event loops: must not block.
    package func setEventHandler(_ handler: @escaping @Sendable (HostEvent) -> Void) {
        state.withLockedValue { state in
            precondition(state.phase == .idle, "the event handler is set before the host is started")
            state.handlers.event = handler
        }
    }

    // MARK: Messages

    /// Sends a request on a stream of its own and returns the answer; connects first when needed, with the addresses
    /// known. A request that failed because a connection turned out dead is tried once more on another.
    ///
    /// - Throws: ``HostError``, or `CancellationError` when the task is cancelled; the stream then ends by itself.
    package func request(_ message: [UInt8], to peer: PeerID, protocolID: String) async throws -> [UInt8] {
        try await withConnection(to: peer) { handle in
            let isLazy = try self.supportsProtocol(protocolID, of: peer)
            let limits = self.configuration.limits
            let completion = Completion<[UInt8]>()
            let began = ContinuousClock.now
            handle.run { connection in
                connection.openStream(
                    RequestStream(
                        message, protocolID: protocolID, isLazy: isLazy, limits: limits, completion: completion))
            }
            let answer = try await completion.wait()
            // Before identify the negotiation takes a round trip of its own.
            if isLazy {
                let time = began.duration(to: .now)
                self.state.withLockedValue { $0.connections.recordRoundTrip(time, of: peer) }
            }
            return answer
        }
    }

    /// Sends messages back to back on one stream, then FIN, and waits for the peer's; answers are discarded. The sequence
    /// is drawn from as the peer's window allows.
    ///
    /// - Throws: ``HostError/streamReset(_:)`` when the peer refused one of the messages.
    package func send(
        _ messages: some Sequence<[UInt8]> & Sendable, to peer: PeerID, protocolID: String
    ) async throws {
        try await withConnection(to: peer) { handle in
            let isLazy = try self.supportsProtocol(protocolID, of: peer)
            let limits = self.configuration.limits
            let completion = Completion<Void>()
            handle.run { connection in
                var iterator = messages.makeIterator()
                connection.openStream(
                    BatchStream(
                        { iterator.next() }, protocolID: protocolID, isLazy: isLazy, limits: limits,
                        completion: completion))
            }
            try await completion.wait()
        }
    }

    /// The round-trip time by the ping protocol.
    package func ping(_ peer: PeerID) async throws -> Duration {
        try await withConnection(to: peer) { handle in
            let limits = self.configuration.limits
            let completion = Completion<Duration>()
            handle.run { $0.openStream(PingRequester(limits: limits, completion: completion)) }
            return try await completion.wait()
        }
    }

    private func withConnection<Value: Sendable>(
        to peer: PeerID, _ body: @Sendable (ConnectionHandle) async throws -> Value
    ) async throws -> Value {
        let first = try await connection(to: peer)
        do {
            return try await body(first)
        } catch HostError.connectionClosed {
            return try await body(try await connection(to: peer))
        }
    }

    private func connection(to peer: PeerID) async throws -> ConnectionHandle {
        if let handle = currentConnection(to: peer) { return handle }
        _ = try await connect(to: peer)
        guard let handle = currentConnection(to: peer) else {
            throw HostError.connectionClosed("ended as soon as it was made")
        }
        return handle
    }

    private func currentConnection(to peer: PeerID) -> ConnectionHandle? {
        state.withLockedValue { $0.connections.newest(to: peer) }
    }

    /// True when identify has listed the protocol; false before identify.
    ///
    /// - Throws: ``HostError/protocolNotSupported(_:)`` when identify has not listed it.
    private func supportsProtocol(_ protocolID: String, of peer: PeerID) throws -> Bool {
        guard let protocols = protocols(of: peer) else { return false }
        guard protocols.contains(protocolID) else { throw HostError.protocolNotSupported(protocolID) }
        return true
    }

    // MARK: Peers

    /// The peers with a connection now.
    package var connectedPeers: [PeerID] { state.withLockedValue { $0.connections.peers } }

    /// Whether there is a connection to the peer now.
    package func isConnected(to peer: PeerID) -> Bool { state.withLockedValue { $0.connections.contains(peer) } }

    /// Keeps the connections of a peer from being closed to make room for others, or lets that be done again. For as many
    /// peers as a routing table has entries.
    package func setProtected(_ isProtected: Bool, _ peer: PeerID) {
        state.withLockedValue { $0.connections.setProtected(isProtected, peer) }
    }

    /// Where the newest connection to a peer leads; nil when there is none.
    package func remoteAddress(of peer: PeerID) -> IPAddress? { currentConnection(to: peer)?.remoteAddress }

    /// The addresses known of a peer, best first.
    package func addresses(of peer: PeerID) -> [Multiaddr] {
        state.withLockedValue { $0.addressBook.addresses(of: peer, now: .now()) }
    }

    /// The IP addresses at which this host has met a connected peer, best first: those it has dialled, and the source of a
    /// connection from the peer where identify names it, too (it may have been translated on the way). When there is none, what
    /// the peer has said of itself over its connection. Empty for a peer without a connection.
    package func observedAddresses(of peer: PeerID) -> [IPAddress] {
        let (connections, identified) = state.withLockedValue { state in
            let connections = state.connections.connections(to: peer)
            return (connections, connections.isEmpty ? [] : state.addressBook.addresses(of: peer, now: .now()))
        }
        let stated = identified.compactMap(\.ipAddress)
        var observed: [IPAddress] = []
        for connection in connections.reversed()
        where connection.isOutbound || stated.contains(connection.remoteAddress) {
            if !observed.contains(connection.remoteAddress) { observed.append(connection.remoteAddress) }
        }
        return observed.isEmpty ? stated : observed
    }

    /// Remembers addresses of a peer for a time. Those of a connected peer are ignored, as identify has said them.
    package func remember(_ addresses: [Multiaddr], of peer: PeerID, for lifetime: TimeAmount) {
        guard peer != peerID else { return }
        let usable = addresses.compactMap { $0.strippingPeerID(peer) }.filter { DialTarget($0) != nil }
        state.withLockedValue { state in
            guard !state.connections.contains(peer) else { return }
            let now = NIODeadline.now()
            state.addressBook.remember(usable, of: peer, until: now + lifetime, now: now)
        }
    }

    /// Forgets all addresses of a peer that is not connected.
    package func forget(_ peer: PeerID) { state.withLockedValue { $0.addressBook.removeAll(of: peer) } }

    /// The protocols in the peer's identify; nil when it is not connected or not identified yet.
    package func protocols(of peer: PeerID) -> [String]? {
        state.withLockedValue { $0.connections.info(of: peer)?.protocols }
    }

    /// Waits until identify with a connected peer has finished, which runs beside the first requests to it; returns after
    /// `limit` in any case.
    ///
    /// - Throws: `CancellationError`.
    package func waitForIdentify(of peer: PeerID, atMost limit: Duration) async throws {
        let deadline = ContinuousClock.now + limit
        while protocols(of: peer) == nil, ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    /// How long a connected peer takes to answer a request, smoothed; nil before the first.
    package func roundTripTime(of peer: PeerID) -> Duration? {
        state.withLockedValue { $0.connections.info(of: peer)?.roundTripTime }
    }

    /// The agent version in the peer's identify; nil when it is not connected or not identified yet.
    package func agentVersion(of peer: PeerID) -> String? {
        state.withLockedValue { $0.connections.info(of: peer)?.agentVersion }
    }

    /// Closes all connections to a peer.
    package func disconnect(_ peer: PeerID) async {
        let handles = state.withLockedValue { $0.connections.connections(to: peer) }
        for handle in handles { handle.close("disconnected by this host") }
        for handle in handles { try? await handle.channel.closeFuture.get() }
    }

    /// Figures for tests, metrics and operators.
    package struct Statistics: Sendable, Equatable {
        /// Secured connections.
        package var connections: Int
        /// Connections that came in and are not secured yet.
        package var unsecuredConnections: Int
        /// Streams of all connections.
        package var streams: Int
        /// Bytes held for unfinished messages and unsent or unread stream data.
        package var bufferedBytes: Int
        /// Peers in the address book.
        package var knownPeers: Int
    }

    /// The figures now.
    package var statistics: Statistics {
        state.withLockedValue { state in
            Statistics(
                connections: state.connections.count, unsecuredConnections: state.accepting.unsecured,
                streams: state.connections.all.reduce(0) { $0 + $1.streamCount },
                bufferedBytes: budget.bytesInUse, knownPeers: state.addressBook.count)
        }
    }

    func emit(_ event: HostEvent) {
        state.withLockedValue { $0.handlers.event }?(event)
    }
}

/// An event of a ``Host``.
package enum HostEvent: Sendable {
    /// Identify finished on a new connection, or (`isPush`) the peer pushed a change over one that exists: the peer's
    /// protocols and the addresses where it can be dialled.
    case identified(PeerID, protocols: [String], addresses: [Multiaddr], isPush: Bool)
    /// The last connection to the peer ended.
    case disconnected(PeerID)
    /// This host's advertised addresses changed; they are pushed to the peers.
    case addressesChanged([Multiaddr])
}

/// Why a connection or a request to a peer failed.
public enum HostError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The host has not been started.
    case notStarted
    /// The host is being shut down, or has been.
    case shutDown
    /// No listen address can be used; says which and why.
    case cannotListen(String)
    /// The peer has no address that can be dialled.
    case noAddresses(PeerID?)
    /// All addresses are in back-off because dials failed lately.
    case backingOff(PeerID?)
    /// No address answered; names each with its reason.
    case dialFailed(String)
    /// Another peer answered than was expected.
    case peerMismatch(expected: PeerID, found: PeerID)
    /// The other end is this host itself.
    case dialledSelf
    /// The connection ended before the answer.
    case connectionClosed(String)
    /// The peer does not support the protocol.
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
        case .protocolNotSupported(let name): "the peer does not support \(WireFormatError.quote(name))"
        case .streamReset(let reason): "stream ended: \(reason)"
        case .timedOut(let what): "timed out: \(what)"
        case .limitReached(let what): "limit reached: \(what)"
        case .badAnswer(let reason): "bad answer: \(reason)"
        }
    }
}
