import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import ResourceLimits
import ServiceLifecycle

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The HTTP/1.1 server below the registry and the admin server: listens, assigns each connection to an event loop, and
/// drains the connections at a shutdown. Keeps the contract of ``Lifecycle``.
package final class HTTPServerCore: Service, Sendable {
    private struct Running: Sendable {
        var channels: [any Channel] = []
        var addresses: [SocketAddress] = []
        var tables: [NIOLoopBound<ConnectionTable>] = []
        var ownGroup: MultiThreadedEventLoopGroup?
    }

    let context: ServerContext
    private let configuration: HTTPServerConfiguration
    private let name: String
    private let lifecycle: Lifecycle
    private let running = NIOLockedValueBox(Running())

    package init(
        name: String, configuration: HTTPServerConfiguration, responder: any RequestResponder,
        observer: (any RequestObserver)?, logger: Logger
    ) {
        self.name = name
        self.configuration = configuration
        lifecycle = Lifecycle(name: "\(name) server")
        context = ServerContext(
            limits: configuration.limits, responder: responder, observer: observer, logger: logger)
    }

    /// The addresses that are listened on; empty before the start and once the shutdown has begun.
    package var addresses: [SocketAddress] {
        lifecycle.isRunning ? running.withLockedValue { $0.addresses } : []
    }

    /// Connections that are open now, refused ones included.
    package var openConnections: Int { context.openConnections }

    /// Starts to listen.
    ///
    /// - Throws: ``ListenError``, then nothing is left running; ``LifecycleError``.
    @discardableResult
    package func start() async throws -> [SocketAddress] {
        let addresses = try await lifecycle.start {
            var running = Running()
            do {
                try await open(&running)
            } catch {
                await stop(running, grace: .zero)
                throw error
            }
            let opened = running
            self.running.withLockedValue { $0 = opened }
            return opened.addresses
        }
        context.logger.info(
            "\(name) listening", metadata: ["addresses": "\(addresses.map(\.endpointText).joined(separator: " "))"])
        return addresses
    }

    /// Stops to listen, lets running responses finish for at most `gracePeriod`, then closes what is left. A further call
    /// with a shorter period shortens the wait.
    ///
    /// - Parameter gracePeriod: nil for ``HTTPLimits/shutdownGracePeriod``.
    package func shutdown(gracePeriod: Duration? = nil) async {
        let grace = TimeAmount(max(gracePeriod ?? context.limits.shutdownGracePeriod, .zero))
        if !lifecycle.isRunning {
            // Already on the way: what is left of this period counts when it is over first.
            running.withLockedValue { running in
                for table in running.tables {
                    table.eventLoop.execute { _ = table.value.drain(gracePeriod: grace) }
                }
            }
        }
        await lifecycle.end {
            await self.stop(self.running.withLockedValue { $0 }, grace: grace)
            self.context.logger.info("\(self.name) stopped")
        }
    }

    /// Runs until the service group shuts down gracefully or the task is cancelled (then running responses are cut off).
    ///
    /// - Throws: as ``start()``.
    package func run() async throws {
        try await lifecycle.run {
            try await start()
        } shutdown: { isCancelled in
            await shutdown(gracePeriod: isCancelled ? .zero : nil)
        }
    }

    private func stop(_ running: Running, grace: TimeAmount) async {
        for channel in running.channels { try? await channel.close() }
        await withTaskGroup(of: Void.self) { group in
            for table in running.tables {
                group.addTask {
                    try? await table.eventLoop.flatSubmit { table.value.drain(gracePeriod: grace) }.get()
                }
            }
        }
        // Before the loops end, so that nothing is given to them any more.
        self.running.withLockedValue { $0 = Running() }
        try? await running.ownGroup?.shutdownGracefully()
    }

    private func open(_ running: inout Running) async throws {
        let group: any EventLoopGroup
        if let given = configuration.eventLoopGroup {
            group = given
        } else {
            let made = MultiThreadedEventLoopGroup(
                numberOfThreads: max(1, configuration.eventLoops ?? System.coreCount))
            running.ownGroup = made
            group = made
        }
        for loop in group.makeIterator() {
            let limits = context.limits
            running.tables.append(
                try await loop.submit {
                    NIOLoopBound(ConnectionTable(eventLoop: loop, limits: limits), eventLoop: loop)
                }.get())
        }
        let bootstrap = makeBootstrap(group: group, tables: running.tables)
        for address in configuration.listen {
            running.channels += try await bind(address, with: bootstrap)
        }
        running.addresses = running.channels.compactMap(\.localAddress)
    }

    // MARK: Listening

    private func makeBootstrap(
        group: any EventLoopGroup, tables: [NIOLoopBound<ConnectionTable>]
    ) -> ServerBootstrap {
        let context = self.context
        let tablesByLoop = Dictionary(uniqueKeysWithValues: tables.map { (ObjectIdentifier($0.eventLoop), $0) })
        return ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: Int32(clamping: configuration.backlog))
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.maxMessagesPerRead, value: 64)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(
                        AcceptPauses.handlers("connections", logger: context.logger))
                }
            }
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(
                .recvAllocator, value: TransientReceiveAllocator(capacity: ConnectionHandler.readBytes)
            )
            .childChannelOption(
                .writeBufferWaterMark,
                value: .init(
                    low: context.limits.writeBufferLowWatermark, high: context.limits.writeBufferHighWatermark)
            )
            .childChannelInitializer { channel in
                guard let table = tablesByLoop[ObjectIdentifier(channel.eventLoop)] else {
                    return channel.eventLoop.makeFailedFuture(ChannelError.inappropriateOperationForState)
                }
                let source = channel.remoteAddress?.ipAddress
                let admission = context.admit(source)
                guard admission != .drop else { return channel.close() }
                let handler = ConnectionHandler(
                    server: context, table: table.value, source: source, isRefused: admission == .refuse)
                do {
                    try channel.pipeline.syncOperations.addHandler(handler)
                    return channel.eventLoop.makeSucceededVoidFuture()
                } catch {
                    context.release(source)
                    return channel.eventLoop.makeFailedFuture(error)
                }
            }
    }

    /// Binds every socket address behind `address`, all to the same port.
    private func bind(_ address: ListenAddress, with bootstrap: ServerBootstrap) async throws -> [any Channel] {
        let candidates = try await NIOThreadPool.singleton.runIfActive { try address.socketAddresses() }
        guard address.host != nil else {
            // One socket for both families; only IPv4 where the machine has no IPv6.
            do {
                return [
                    try await bootstrap.serverChannelOption(.ipv6Only, value: 0).bind(to: candidates[0]).get()
                ]
            } catch let error as IOError where error.meansNoIPv6 {
                return [try await bind(candidates[1], for: address, with: bootstrap)]
            } catch {
                throw ListenError(address, error)
            }
        }
        // With port 0 the system chooses one for the first socket; it may be taken for the next, so try again.
        for attempt in 1... {
            var channels: [any Channel] = []
            do {
                for candidate in candidates {
                    var candidate = candidate
                    if candidate.port == 0 { candidate.port = channels.first?.localAddress?.port ?? 0 }
                    channels.append(try await bind(candidate, for: address, with: bootstrap))
                }
                return channels
            } catch {
                for channel in channels { try? await channel.close() }
                guard address.port == 0, channels.count > 0, attempt < 16 else { throw error }
            }
        }
        throw ListenError(address, "no port is free on all of its addresses")
    }

    private func bind(
        _ address: SocketAddress, for listen: ListenAddress, with bootstrap: ServerBootstrap
    ) async throws -> any Channel {
        do {
            // An address all of whose bits are zero would take the IPv4 port too.
            let bootstrap =
                address.protocol == .inet6 && listen.host != "::"
                ? bootstrap.serverChannelOption(.ipv6Only, value: 1) : bootstrap
            return try await bootstrap.bind(to: address).get()
        } catch {
            throw ListenError(listen, error)
        }
    }
}

extension ChannelOption where Self == ChannelOptions.Types.SocketOption {
    /// Whether an IPv6 socket keeps to IPv6.
    fileprivate static var ipv6Only: Self { .init(level: .ipv6, name: .ipv6_v6only) }
}

extension IOError {
    fileprivate var meansNoIPv6: Bool { errnoCode == EAFNOSUPPORT || errnoCode == EADDRNOTAVAIL }
}

extension SocketAddress {
    /// `host:port` with an IPv6 host in brackets.
    package var endpointText: String {
        guard let ipAddress, let port else { return description }
        return ipAddress.contains(":") ? "[\(ipAddress)]:\(port)" : "\(ipAddress):\(port)"
    }
}

/// Gives every read its own buffer, so that an idle connection holds none. (Allocators that predict the next size make
/// the channel keep one buffer for its lifetime, which adds up over 10,000 idle connections.)
struct TransientReceiveAllocator: RecvByteBufferAllocator {
    let capacity: Int

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer { allocator.buffer(capacity: capacity) }

    mutating func record(actualReadBytes: Int) -> Bool { false }
}
