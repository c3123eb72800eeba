import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

extension Host {
    /// Opens the listeners.
    ///
    /// A wildcard address of a family the machine does not have is passed over when another listener works.
    ///
    /// - Throws: ``HostError/cannotListen(_:)``, ``HostError/shutDown``.
    public func start() async throws {
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
                    skipped = "\(address): \(error)"
                    configuration.logger.notice(
                        "address family not available", metadata: ["address": "\(address)", "error": "\(error)"])
                } catch {
                    throw HostError.cannotListen("\(address): \(error)")
                }
            }
            if state.withLockedValue({ $0.listeners.isEmpty }), let skipped { throw HostError.cannotListen(skipped) }
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
            self.state.withLockedValue { $0.book.sweep(now: .now()) }
            self.refreshAddresses()
        }
        let isRunning = state.withLockedValue { state in
            state.addressCheck = task
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
                    try channel.pipeline.syncOperations.addHandler(
                        AcceptBackoffHandler.logging(to: self.configuration.logger))
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
            state.listeners.append(channel)
            state.addresses.bound.append(TCPEndpoint(endpoint.address, port: port))
        }
        // At once: a peer that connects while the other listeners are opened must learn of this one.
        refreshAddresses()
    }

    static var waterMark: ChannelOptions.Types.WriteBufferWaterMark { .init(low: 64 << 10, high: 256 << 10) }

    /// Runs on the new channel's event loop; an error closes the channel.
    private func accept(_ channel: any Channel) throws {
        guard let remote = channel.remoteAddress.flatMap({ IPAddress($0) })?.unmapped else {
            throw HostError.connectionClosed("no remote address")
        }
        let limits = configuration.limits
        try state.withLockedValue { state in
            guard state.phase == .running else { throw HostError.shutDown }
            guard state.unsecured < limits.unsecuredConnections else {
                throw HostError.limitReached("connections not yet secured")
            }
            guard state.acceptLimiter.accepts(remote, now: .now()) else {
                throw HostError.limitReached("new connections from \(remote)")
            }
            state.unsecured += 1
        }
        track(channel)
        let counted = RunOnce { self.state.withLockedValue { $0.unsecured -= 1 } }
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
        state.withLockedValue { $0.channels[id] = channel }
        channel.closeFuture.whenComplete { [weak self] _ in
            self?.state.withLockedValue { _ = $0.channels.removeValue(forKey: id) }
        }
    }

    /// The addresses bound, with real ports.
    public var listenAddresses: [Multiaddr] {
        state.withLockedValue { $0.addresses.bound.map { Multiaddr($0.address, tcpPort: $0.port) } }
    }

    /// The addresses told to peers.
    public var advertisedAddresses: [Multiaddr] { state.withLockedValue { $0.advertised } }

    /// Looks at the interfaces; tells owner and peers when the addresses have changed since.
    func refreshAddresses() {
        let (interfaces, crowded) = ListenAddresses.currentInterfaces()
        refreshAddresses(interfaces: interfaces, crowded: crowded)
    }

    /// Takes the machine's addresses to be these; tells owner and peers when ours have changed by that.
    func refreshAddresses(interfaces: Set<IPAddress>, crowded: Set<IPAddress> = []) {
        let empty = identifyMessage(addresses: [], observed: Multiaddr(.anyV6, tcpPort: .max))
        let room = IdentifyMessage.maximumLength - empty.encoded.count
        let announced = configuration.announcedAddresses
        let includingLoopback = configuration.advertiseLoopback
        let change = state.withLockedValue { state -> (addresses: [Multiaddr], peers: [ConnectionHandle])? in
            guard state.phase == .running else { return nil }
            state.addresses.interfaces = interfaces
            state.addresses.crowded = crowded
            let addresses = IdentifyMessage.fitting(
                announced ?? state.addresses.advertised(includingLoopback: includingLoopback), room: room)
            guard addresses != state.advertised else { return nil }
            state.advertised = addresses
            state.addressVersion += 1
            let peers = state.connections.compactMap { peer, handles in
                state.identified[peer]?.protocols.contains(IdentifyMessage.pushProtocolID) == true ? handles.last : nil
            }
            return (addresses, peers)
        }
        guard let change else { return }
        configuration.logger.info(
            "advertised addresses", metadata: ["addresses": "\(change.addresses.map(\.description))"])
        emit(.addressesChanged(change.addresses))
        for handle in change.peers { pushIdentify(on: handle) }
    }

    /// Stops offering a protocol, and tells a peer of it by identify push.
    ///
    /// Returns when the peer has taken it, or will not. Streams that are open go on.
    func withdraw(_ protocolID: String, tellingPeer peer: PeerID) async {
        let handle = state.withLockedValue { state -> ConnectionHandle? in
            state.messageHandlers[protocolID] = nil
            let takesPushes = state.identified[peer]?.protocols.contains(IdentifyMessage.pushProtocolID) ?? false
            return takesPushes ? state.connections[peer]?.last : nil
        }
        guard let handle else { return }
        let ended = Completion<Void>()
        pushIdentify(on: handle, ended: ended)
        try? await ended.wait()
    }

    /// Stops listening and closes all connections. Afterwards nothing of the host is left open.
    public func shutdown() async {
        let (check, listeners, handles) = state.withLockedValue { state in
            state.phase = .stopped
            defer { state.listeners = [] }
            return (state.addressCheck, state.listeners, state.connections.values.flatMap { $0 })
        }
        check?.cancel()
        for listener in listeners { try? await listener.close() }
        for handle in handles { handle.close("the host is shut down") }
        for handle in handles { try? await handle.channel.closeFuture.get() }
        // Those that were being made.
        for channel in state.withLockedValue({ Array($0.channels.values) }) { try? await channel.close() }
    }
}
