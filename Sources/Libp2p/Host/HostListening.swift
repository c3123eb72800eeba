import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import ResourceLimits
import ServiceSupport

extension Host {
    /// Opens the listeners.
    ///
    /// A wildcard address of a family the machine does not have is passed over when another listener works.
    ///
    /// - Throws: ``HostError/cannotListen(_:)``, ``HostError/shutDown``.
    package func start() async throws {
        try state.withLockedValue { state in
            guard state.phase == .idle else {
                throw state.phase == .running ? HostError.cannotListen("started already") : HostError.shutDown
            }
            state.phase = .running
        }
        do {
            var skipped: String?
            for address in configuration.listenAddresses {
                guard let endpoint = address.tcpEndpoint, endpoint.zone == nil else {
                    throw HostError.cannotListen("\(address) is not an IP address with a TCP port")
                }
                do {
                    try await listen(on: endpoint)
                } catch let error as IOError
                    where endpoint.address.isUnspecified && [EAFNOSUPPORT, EADDRNOTAVAIL].contains(error.errnoCode)
                {
                    skipped = "\(address): \(plainReason(error))"
                    configuration.logger.notice(
                        "address family not available", metadata: ["address": "\(address)", "error": "\(error)"])
                } catch {
                    throw HostError.cannotListen("\(address): \(plainReason(error))")
                }
            }
            if state.withLockedValue({ !$0.channels.hasListeners }), let skipped {
                throw HostError.cannotListen(skipped)
            }
        } catch {
            await shutdown()
            throw error
        }
        // For a host without listeners.
        refreshAddresses()
        let interval = configuration.limits.interfaceCheckInterval
        let task = configuration.eventLoopGroup.any().scheduleRepeatedTask(
            initialDelay: interval, delay: interval
        ) { [weak self] task in
            guard let self else { return task.cancel() }
            self.state.withLockedValue { $0.addressBook.removeExpired(now: .now()) }
            self.refreshAddresses()
        }
        let isRunning = state.withLockedValue { state in
            state.channels.setMaintenance(task)
            return state.phase == .running
        }
        if !isRunning { task.cancel() }
    }

    private func listen(on endpoint: TCPEndpoint) async throws {
        let address = try SocketAddress(
            packedIPAddress: ByteBuffer(bytes: endpoint.address.bytes), port: Int(endpoint.port))
        let channel = try await ServerBootstrap(group: configuration.eventLoopGroup)
            .serverChannelOption(.backlog, value: 256)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(
                        AcceptPauses.handlers("connections of peers", logger: self.configuration.logger))
                    // Each family has its own listener; without this the IPv6 one would take both.
                    guard endpoint.address.isV6 else { return }
                    try channel.syncOptions?.setOption(
                        ChannelOptions.Types.SocketOption(level: .ipv6, name: .ipv6_v6only), value: 1)
                }
            }
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.writeBufferWaterMark, value: Self.waterMark)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try self.accept(channel) }
            }
            .bind(to: address).get()
        let port = channel.localAddress?.port.map(UInt16.init(clamping:)) ?? endpoint.port
        state.withLockedValue { state in
            state.channels.addListener(channel)
            state.listening.add(TCPEndpoint(endpoint.address, port: port))
        }
        // At once: a peer that connects while the other listeners are opened must get this address.
        refreshAddresses()
    }

    static var waterMark: ChannelOptions.Types.WriteBufferWaterMark { .init(low: 64 << 10, high: 256 << 10) }

    /// Runs on the new channel's event loop; an error closes the channel.
    private func accept(_ channel: any Channel) throws {
        guard let remote = channel.remoteAddress.flatMap({ IPAddress($0) })?.unmapped else {
            throw HostError.connectionClosed("no remote address")
        }
        try state.withLockedValue { state in
            try state.requireRunning()
            try state.accepting.admit(remote, now: .now())
        }
        track(channel)
        let counted = RunOnce { self.state.withLockedValue { $0.accepting.secured(remote) } }
        channel.closeFuture.whenComplete { _ in counted.run() }
        let connection = try Connection(
            eventLoop: channel.eventLoop, environment: self, role: .responder, remoteAddress: remote,
            dialledAddress: nil, expectedPeer: nil
        ) { _ in counted.run() }
        try channel.pipeline.syncOperations.addHandler(connection)
    }

    /// Remembers a channel until it closes.
    func track(_ channel: any Channel) {
        let id = ObjectIdentifier(channel)
        state.withLockedValue { $0.channels.add(channel) }
        channel.closeFuture.whenComplete { [weak self] _ in
            self?.state.withLockedValue { $0.channels.remove(id) }
        }
    }

    /// The addresses bound, with real ports.
    package var listenAddresses: [Multiaddr] {
        state.withLockedValue { $0.listening.endpoints.map { Multiaddr($0.address, tcpPort: $0.port) } }
    }

    /// The addresses that peers get in identify.
    package var advertisedAddresses: [Multiaddr] { state.withLockedValue { $0.listening.advertised } }

    /// Derives the advertised addresses from the machine's; emits ``HostEvent/addressesChanged(_:)`` and pushes them to
    /// the peers when they have changed.
    func refreshAddresses(_ interfaces: InterfaceAddresses = .current()) {
        let empty = identifyMessage(addresses: [], observed: Multiaddr(.anyV6, tcpPort: .max))
        let room = IdentifyMessage.maximumLength - empty.encoded.count
        let announced = configuration.announcedAddresses
        let includingLoopback = configuration.advertiseLoopback
        let change = state.withLockedValue { state -> (addresses: [Multiaddr], peers: [ConnectionHandle])? in
            guard state.phase == .running else { return nil }
            let hasChanged = state.listening.update(
                interfaces, announced: announced, includingLoopback: includingLoopback, room: room)
            return hasChanged ? (state.listening.advertised, state.connections.pushTargets) : nil
        }
        guard let change else { return }
        configuration.logger.info(
            "advertised addresses", metadata: ["addresses": "\(change.addresses.map(\.description))"])
        emit(.addressesChanged(change.addresses))
        for handle in change.peers { pushIdentify(on: handle) }
    }

    /// Stops offering a protocol and sends a peer an identify push that no longer lists it.
    ///
    /// Returns when the push has ended, in whatever way. Streams that are open go on.
    package func withdraw(_ protocolID: String, notifying peer: PeerID) async {
        let handle = state.withLockedValue { state -> ConnectionHandle? in
            state.handlers[protocolID] = nil
            return state.connections.pushTarget(peer)
        }
        guard let handle else { return }
        let ended = Completion<Void>()
        pushIdentify(on: handle, ended: ended)
        try? await ended.wait()
    }

    /// Stops listening and closes all connections. Afterwards nothing of the host is left open.
    package func shutdown() async {
        let (listening, handles) = state.withLockedValue { state in
            state.phase = .stopped
            return (state.channels.takeListeners(), state.connections.all)
        }
        listening.maintenance?.cancel()
        for listener in listening.channels { try? await listener.close() }
        for handle in handles { handle.close("the host is shut down") }
        for handle in handles { try? await handle.channel.closeFuture.get() }
        // Connections that were being made.
        for channel in state.withLockedValue({ $0.channels.connectionChannels }) { try? await channel.close() }
    }
}
