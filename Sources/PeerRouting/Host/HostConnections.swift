import Logging
import NIOConcurrencyHelpers
import NIOCore

extension Host: ConnectionEnvironment {
    var identity: NodeIdentity { configuration.identity }
    var limits: HostLimits { configuration.limits }
    var logger: Logger { configuration.logger }

    var protocols: [String] {
        [IdentifyMessage.protocolID, IdentifyMessage.pushProtocolID, PingResponder.protocolID]
            + state.withLockedValue { $0.messageHandlers.keys.sorted() }
    }

    func messageHandler(for protocolID: String) -> MessageHandler? {
        state.withLockedValue { $0.messageHandlers[protocolID] }
    }

    func identifyMessage(for handle: ConnectionHandle) -> [UInt8] {
        let addresses = state.withLockedValue { state in
            handle.toldAddressVersion = state.addressVersion
            return state.advertised
        }
        return identifyMessage(
            addresses: addresses,
            observed: Multiaddr(
                handle.remoteAddress,
                tcpPort: handle.channel.remoteAddress?.port.map(UInt16.init(clamping:)) ?? 0)
        ).encoded
    }

    func identifyMessage(addresses: [Multiaddr], observed: Multiaddr) -> IdentifyMessage {
        IdentifyMessage(
            publicKey: identity.publicKey.encoded, listenAddresses: addresses, protocols: protocols,
            observedAddress: observed, agentVersion: configuration.agentVersion)
    }

    func connectionOpened(_ handle: ConnectionHandle) throws {
        guard handle.peer != peerID else { throw HostError.dialledSelf }
        let limits = limits
        let surplus = try state.withLockedValue { state -> [ConnectionHandle] in
            guard state.phase == .running else { throw HostError.shutDown }
            var surplus: [ConnectionHandle] = []
            // The newest is kept, as the peer may have restarted and left the older ones dead.
            if state.connections[handle.peer, default: []].count >= limits.connectionsPerPeer,
                let victim = state.longestIdle(of: handle.peer, includingBusy: true)
            {
                surplus.append(victim)
            } else if state.connectionCount >= limits.connections {
                guard let victim = state.longestIdle(includingBusy: false) else {
                    throw HostError.limitReached("connections")
                }
                surplus.append(victim)
            }
            for victim in surplus { Self.remove(victim, from: &state) }
            state.connections[handle.peer, default: []].append(handle)
            state.connectionCount += 1
            state.book.connected(handle.peer)
            return surplus
        }
        for victim in surplus {
            victim.close("to make room for another connection")
            if !isConnected(to: victim.peer) { emit(.disconnected(victim.peer)) }
        }
        logger.debug(
            "connection opened",
            metadata: [
                "peer": "\(handle.peer)", "address": "\(handle.remoteAddress)",
                "direction": handle.isOutbound ? "out" : "in",
            ])
    }

    func connectionEnded(_ handle: ConnectionHandle?, remoteAddress: IPAddress, reason: String) {
        // Starting Go nodes hang up in the middle of the handshake as a matter of course: no more than debug.
        logger.debug(
            "connection ended",
            metadata: [
                "peer": "\(handle?.peer.description ?? "unknown")", "address": "\(remoteAddress)",
                "reason": "\(reason)",
            ])
        guard let handle else { return }
        let isGone = state.withLockedValue { Self.remove(handle, from: &$0) }
        if isGone { emit(.disconnected(handle.peer)) }
    }

    /// True when it was the last connection to its peer.
    @discardableResult
    private static func remove(_ handle: ConnectionHandle, from state: inout HostState) -> Bool {
        guard var handles = state.connections[handle.peer],
            let index = handles.firstIndex(where: { $0 === handle })
        else { return false }
        handles.remove(at: index)
        state.connectionCount -= 1
        guard handles.isEmpty else {
            state.connections[handle.peer] = handles
            return false
        }
        state.connections[handle.peer] = nil
        state.identified[handle.peer] = nil
        state.book.disconnected(handle.peer, now: .now())
        return true
    }

    func identified(_ handle: ConnectionHandle, _ message: IdentifyMessage, isPush: Bool) {
        let peer = handle.peer
        if let key = message.publicKey, (try? PublicKey(parsing: key[...])).map({ PeerID(publicKey: $0) }) != peer {
            logger.debug("identify with the key of another peer", metadata: ["peer": "\(peer)"])
        }
        var addresses = message.usableAddresses(
            of: peer, remote: handle.remoteAddress, allowLoopback: configuration.advertiseLoopback)
        if let policy = configuration.addressPolicy {
            let remote = policy.requiresObservedAddress ? handle.remoteAddress : nil
            addresses = policy.filter(addresses, observed: remote)
        }
        let (event, isBehind) = state.withLockedValue { state -> (HostEvent?, Bool) in
            guard state.connections[peer] != nil else { return (nil, false) }
            var protocols = message.protocols
            // A push may tell only what has changed.
            if isPush, protocols.isEmpty { protocols = state.identified[peer]?.protocols ?? [] }
            if isPush, message.listenAddresses.isEmpty { addresses = state.book.addresses(of: peer, now: .now()) }
            // An address that was dialled has proved itself.
            if let dialled = handle.dialledAddress, !isPush, dialled.tcpEndpoint != nil, !addresses.contains(dialled) {
                addresses.append(dialled)
            }
            state.identified[peer] = .init(protocols: protocols, agentVersion: message.agentVersion)
            state.book.replace(addresses, of: peer, now: .now())
            // Our addresses may have changed after the peer asked for them and before it was known to take pushes.
            let isBehind =
                protocols.contains(IdentifyMessage.pushProtocolID)
                && handle.toldAddressVersion.map { $0 < state.addressVersion } ?? false
            return (.identified(peer, protocols: protocols, addresses: addresses, isPush: isPush), isBehind)
        }
        if let event { emit(event) }
        if isBehind { pushIdentify(on: handle) }
    }

    /// Tells a peer what we speak and where we are now.
    func pushIdentify(on handle: ConnectionHandle, ended: Completion<Void>? = nil) {
        let message = identifyMessage(for: handle)
        let limits = limits
        handle.run { $0.openStream(IdentifyPusher(message, limits: limits, ended: ended)) }
    }

    /// Asks a peer once more who it is, when it is connected and that is not known: the first attempt failed.
    func identifyAgain(_ peer: PeerID) {
        let handle = state.withLockedValue { state in
            state.identified[peer] == nil ? state.connections[peer]?.last : nil
        }
        handle?.run { $0.identifyPeer() }
    }
}
