import Logging
import NIOConcurrencyHelpers
import NIOCore

extension Host: ConnectionEnvironment {
    var identity: NodeIdentity { configuration.identity }
    var limits: HostLimits { configuration.limits }
    var logger: Logger { configuration.logger }

    var protocols: [String] {
        [IdentifyMessage.protocolID, IdentifyMessage.pushProtocolID, PingResponder.protocolID]
            + state.withLockedValue { $0.handlers.protocolIDs }
    }

    func messageHandler(for protocolID: String) -> MessageHandler? {
        state.withLockedValue { $0.handlers[protocolID] }
    }

    func identifyMessage(for handle: ConnectionHandle) -> [UInt8] {
        let addresses = state.withLockedValue { state in
            handle.lastSentAddressVersion = state.listening.version
            return state.listening.advertised
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
        let surplus = try state.withLockedValue { try $0.add(handle) }
        for other in surplus {
            other.close("to make room for another connection")
            if !isConnected(to: other.peer) { emit(.disconnected(other.peer)) }
        }
        logger.debug(
            "connection opened",
            metadata: [
                "peer": "\(handle.peer)", "address": "\(handle.remoteAddress)",
                "direction": handle.isOutbound ? "out" : "in",
            ])
    }

    func connectionEnded(_ handle: ConnectionHandle?, remoteAddress: IPAddress, reason: String) {
        // At debug level only: Go nodes that start close connections in the middle of the handshake as a matter of course.
        logger.debug(
            "connection ended",
            metadata: [
                "peer": "\(handle?.peer.description ?? "unknown")", "address": "\(remoteAddress)",
                "reason": "\(reason)",
            ])
        guard let handle else { return }
        let wasLast = state.withLockedValue { $0.remove(handle) }
        if wasLast { emit(.disconnected(handle.peer)) }
    }

    func identified(_ handle: ConnectionHandle, _ message: IdentifyMessage, isPush: Bool) {
        let peer = handle.peer
        if let key = message.publicKey, (try? PublicKey(parsing: key[...])).map({ PeerID(publicKey: $0) }) != peer {
            logger.debug("identify has the key of another peer", metadata: ["peer": "\(peer)"])
        }
        var addresses = message.usableAddresses(
            of: peer, remote: handle.remoteAddress, allowLoopback: configuration.advertiseLoopback)
        if let policy = configuration.addressPolicy {
            let remote = policy.requiresObservedAddress ? handle.remoteAddress : nil
            addresses = policy.filter(addresses, observed: remote)
        }
        let (event, isBehind) = state.withLockedValue { state -> (HostEvent?, Bool) in
            guard state.connections.contains(peer) else { return (nil, false) }
            var protocols = message.protocols
            // A push may list only what has changed.
            if isPush, protocols.isEmpty { protocols = state.connections.info(of: peer)?.protocols ?? [] }
            if isPush, message.listenAddresses.isEmpty {
                addresses = state.addressBook.addresses(of: peer, now: .now())
            }
            // An address that was dialled is known to work.
            if let dialled = handle.dialledAddress, !isPush, dialled.tcpEndpoint != nil, !addresses.contains(dialled) {
                addresses.append(dialled)
            }
            let info = ConnectionTable.PeerInfo(protocols: protocols, agentVersion: message.agentVersion)
            state.connections.setInfo(info, of: peer)
            state.addressBook.replace(addresses, of: peer)
            // Our addresses may have changed after the peer asked for them and before it was known to accept pushes.
            let isBehind =
                info.acceptsPush && handle.lastSentAddressVersion.map { $0 < state.listening.version } ?? false
            return (.identified(peer, protocols: protocols, addresses: addresses, isPush: isPush), isBehind)
        }
        if let event { emit(event) }
        if isBehind { pushIdentify(on: handle) }
    }

    /// Sends a peer this host's protocols and addresses by identify push.
    func pushIdentify(on handle: ConnectionHandle, ended: Completion<Void>? = nil) {
        let message = identifyMessage(for: handle)
        let limits = limits
        handle.run { $0.openStream(IdentifyPusher(message, limits: limits, ended: ended)) }
    }

    /// Runs identify again with a connected peer that has not been identified, because the first attempt failed.
    package func identifyAgain(_ peer: PeerID) {
        let handle = state.withLockedValue { state in
            state.connections.info(of: peer) == nil ? state.connections.newest(to: peer) : nil
        }
        handle?.run { $0.identifyPeer() }
    }
}
