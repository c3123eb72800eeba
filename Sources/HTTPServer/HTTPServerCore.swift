import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import ServiceLifecycle

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Listens, gives each connection to an event loop, and ends in an orderly way: what the registry server and the
/// server for metrics have in common.
final class HTTPServerCore: Service, Sendable {
    private enum State {
        case new
        case starting
        case running(Running)
        case stopped
    }

    private struct Running: Sendable {
        var channels: [any Channel]
        var addresses: [SocketAddress]
        var tables: [NIOLoopBound<ConnectionTable>]
        var ownGroup: MultiThreadedEventLoopGroup?
    }

    /// The server was started twice, or after it was stopped.
    struct AlreadyStarted: Error, CustomStringConvertible {
        var description: String { "the server was started before" }
    }

    let context: ServerContext
    private let configuration: HTTPServerConfiguration
    private let name: String
    private let state = NIOLockedValueBox(State.new)

    init(
        name: String, configuration: HTTPServerConfiguration, responder: any RequestResponder,
        observer: (any RequestObserver)?, logger: Logger
    ) {
        self.name = name
        self.configuration = configuration
        context = ServerContext(
            limits: configuration.limits, responder: responder, observer: observer, logger: logger)
    }

    /// Where the server listens; empty before it is started and after it is stopped.
    var addresses: [SocketAddress] {
        state.withLockedValue { if case .running(let running) = $0 { running.addresses } else { [] } }
    }

    /// Starts to listen.
    ///
    /// - Throws: ``ListenError``; then nothing is left running.
    @discardableResult
    func start() async throws -> [SocketAddress] {
        try state.withLockedValue { state in
            guard case .new = state else { throw AlreadyStarted() }
            state = .starting
        }
        var ownGroup: MultiThreadedEventLoopGroup?
        let group: any EventLoopGroup
        if let given = configuration.eventLoopGroup {
            group = given
        } else {
            let made = MultiThreadedEventLoopGroup(
                numberOfThreads: max(1, configuration.eventLoops ?? System.coreCount))
            ownGroup = made
            group = made
        }
        var channels: [any Channel] = []
        do {
            var tables: [NIOLoopBound<ConnectionTable>] = []
            for loop in group.makeIterator() {
                let limits = context.limits
                tables.append(
                    try await loop.submit {
                        NIOLoopBound(ConnectionTable(eventLoop: loop, limits: limits), eventLoop: loop)
                    }.get())
            }
            let bootstrap = makeBootstrap(group: group, tables: tables)
            for address in configuration.listen {
                channels += try await bind(address, with: bootstrap)
            }
            let addresses = channels.compactMap(\.localAddress)
            let running = Running(channels: channels, addresses: addresses, tables: tables, ownGroup: ownGroup)
            state.withLockedValue { $0 = .running(running) }
            context.logger.info(
                "\(name) listening", metadata: ["addresses": "\(addresses.map(\.endpointText).joined(separator: " "))"])
            return addresses
        } catch {
            for channel in channels { try? await channel.close() }
            try? await ownGroup?.shutdownGracefully()
            state.withLockedValue { $0 = .stopped }
            throw error
        }
    }

    /// Stops to listen, lets running responses finish for at most `gracePeriod`, then closes what is left.
    func stop(gracePeriod: Duration) async {
        let running: Running? = state.withLockedValue { state in
            guard case .running(let running) = state else { return nil }
            state = .stopped
            return running
        }
        guard let running else { return }
        for channel in running.channels { try? await channel.close() }
        let grace = TimeAmount(max(gracePeriod, .zero))
        await withTaskGroup(of: Void.self) { group in
            for table in running.tables {
                group.addTask {
                    let loop = table.eventLoop
                    try? await loop.flatSubmit { table.value.drain(gracePeriod: grace) }.get()
                }
            }
        }
        try? await running.ownGroup?.shutdownGracefully()
        context.logger.info("\(name) stopped")
    }

    /// Runs until the service group shuts down gracefully or the task is cancelled. Starts unless it was started.
    func run() async throws {
        let isNew = state.withLockedValue { if case .new = $0 { true } else { false } }
        if isNew { try await start() }
        do {
            try await gracefulShutdown()
            await stop(gracePeriod: context.limits.shutdownGracePeriod)
        } catch {
            await stop(gracePeriod: .zero)
        }
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
                let admission = context.admit()
                guard admission != .drop else { return channel.close() }
                let handler = ConnectionHandler(
                    server: context, table: table.value, isRefused: admission == .refuse)
                do {
                    try channel.pipeline.syncOperations.addHandler(handler)
                    return channel.eventLoop.makeSucceededVoidFuture()
                } catch {
                    context.release()
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
    var endpointText: String {
        guard let ipAddress, let port else { return description }
        return ipAddress.contains(":") ? "[\(ipAddress)]:\(port)" : "\(ipAddress):\(port)"
    }
}
