import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import ResourceLimits
import ServiceSupport

/// Serves this node's own record at `/id`, so that others can bootstrap by it over HTTP.
final class IdentityServer: Sendable {
    /// Connections served at once; more are closed at once.
    static let maximumConnections = 64
    /// Those of one source address (for IPv6 one /64); loopback is exempt.
    static let connectionsPerSource = 16
    /// A connection on which nothing happens for so long is closed.
    static let idleTimeout: TimeAmount = .seconds(10)
    /// A connection is closed after so long, whatever happens on it: an answer is a few hundred bytes.
    static let lifetime: TimeAmount = .seconds(30)

    private let channel: any Channel

    /// The address bound, with the real port.
    var localAddress: SocketAddress? { channel.localAddress }

    private init(channel: any Channel) {
        self.channel = channel
    }

    /// Starts listening.
    ///
    /// - Parameters:
    ///   - host: An IP address or name, empty for all interfaces.
    ///   - certificateDirectory: When given, clients must use mutual TLS with the certificates in it.
    ///   - connectionTimeout: The longest life of a connection.
    ///   - record: Asked for each request.
    /// - Throws: ``BootstrapError`` when a certificate cannot be used, or an error naming the address.
    static func start(
        host: String, port: Int, certificateDirectory: String?, eventLoopGroup: any EventLoopGroup, logger: Logger,
        connectionTimeout: TimeAmount = lifetime, record: @escaping @Sendable () -> (PeerID, [Multiaddr])
    ) async throws -> IdentityServer {
        let tls = try certificateDirectory.map {
            try NIOSSLContext(configuration: try BootstrapCertificates(directory: $0).serverConfiguration())
        }
        let connections = ConnectionShares(limit: maximumConnections, limitPerSource: connectionsPerSource)
        let bootstrap = ServerBootstrap(group: eventLoopGroup)
            .serverChannelOption(.backlog, value: 64)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(
                        AcceptPauses.handlers("connections of peers", logger: logger))
                }
            }
            .childChannelInitializer { channel in
                let source = channel.remoteAddress.flatMap { IPAddress($0) }?.limitedSource
                guard connections.take(source) else { return channel.close() }
                let end = channel.eventLoop.scheduleTask(in: connectionTimeout) { channel.close(promise: nil) }
                channel.closeFuture.whenComplete { _ in
                    end.cancel()
                    connections.giveBack(source)
                }
                return channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls { try pipeline.addHandler(NIOSSLServerHandler(context: tls)) }
                    try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
                    try pipeline.addHandler(IdleStateHandler(allTimeout: idleTimeout))
                    try pipeline.addHandler(Handler(record: record, logger: logger))
                }
            }
        do {
            // Where it can be had, the IPv6 wildcard takes IPv4 as well.
            let hosts = host.isEmpty ? ["::", "0.0.0.0"] : [host]
            let channel = try await firstAvailable(hosts) { try await bootstrap.bind(host: $0, port: port).get() }
            return IdentityServer(channel: channel)
        } catch {
            throw BootstrapError("cannot serve /id on \(host):\(port): \(plainReason(error))")
        }
    }

    /// Binds to the first of the addresses whose family the machine has.
    static func firstAvailable<Listener>(
        _ hosts: [String], bind: (String) async throws -> Listener
    ) async throws -> Listener {
        for host in hosts.dropLast() {
            do {
                return try await bind(host)
            } catch let error as IOError where [EAFNOSUPPORT, EADDRNOTAVAIL].contains(error.errnoCode) {}
        }
        return try await bind(hosts.last ?? "")
    }

    /// Stops listening; answers under way are finished.
    func stop() async {
        try? await channel.close()
    }

    /// Answers as soon as a head has come: what a client sends as a body is not waited for.
    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        private let record: @Sendable () -> (PeerID, [Multiaddr])
        private let logger: Logger

        init(record: @escaping @Sendable () -> (PeerID, [Multiaddr]), logger: Logger) {
            self.record = record
            self.logger = logger
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard case .head(let head) = unwrapInboundIn(data) else { return }
            respond(to: head, context: context)
        }

        private func respond(to request: HTTPRequestHead, context: ChannelHandlerContext) {
            let path = request.uri.prefix { $0 != "?" }
            var status = HTTPResponseStatus.ok
            var body: [UInt8] = []
            if path != "/id" {
                status = .notFound
            } else if request.method != .GET, request.method != .HEAD {
                status = .methodNotAllowed
            } else {
                let (peer, addresses) = record()
                do { body = try BootstrapRecord.list(peer, addresses) } catch { status = .internalServerError }
            }
            var head = HTTPResponseHead(version: request.version, status: status)
            head.headers.add(name: "content-length", value: "\(body.count)")
            if status == .ok { head.headers.add(name: "content-type", value: "application/json") }
            if status == .methodNotAllowed { head.headers.add(name: "allow", value: "GET, HEAD") }
            let hasBody =
                request.headers.contains(name: "transfer-encoding")
                || (request.headers.first(name: "content-length") ?? "0") != "0"
            let staysOpen = request.isKeepAlive && !hasBody
            if !staysOpen { head.headers.add(name: "connection", value: "close") }
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            if request.method != .HEAD {
                context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: body)))), promise: nil)
            }
            let done = context.writeAndFlush(wrapOutboundOut(.end(nil)))
            let channel = context.channel
            if !staysOpen { done.whenComplete { _ in channel.close(promise: nil) } }
        }

        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if event is IdleStateHandler.IdleStateEvent {
                context.close(promise: nil)
            } else {
                context.fireUserInboundEventTriggered(event)
            }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            logger.debug("bootstrap request failed", metadata: ["error": "\(error)"])
            context.close(promise: nil)
        }
    }
}
