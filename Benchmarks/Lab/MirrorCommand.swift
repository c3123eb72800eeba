import ArgumentParser
import ContentStore
import Foundation
import Logging
import MirrorServer
import NIOCore
import NIOPosix
import PeerRouting

/// A node with nothing in its store whose one peer has everything, or a plain relay to that peer, as a process of its
/// own for ``MirrorBenchmark``. Prints its port and ends with its standard input.
struct MirrorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "mirror-node", shouldDisplay: false)

    @Option var peerPort: Int
    @Option var eventLoops: Int
    @Flag var unverified = false
    @Flag(help: "No mirror: bytes go to and fro as they are.") var relay = false

    func run() async throws {
        OpenFileLimit.raise()
        if relay {
            let port = try await PlainRelay.start(upstream: peerPort, eventLoops: eventLoops)
            Self.report(port)
            await Self.inputEnds()
            return
        }
        let source = Peer(id: NodeIdentity().peerID, addresses: [.loopbackV4])
        let router = EverythingRouter(source: source, localPeer: Peer(id: NodeIdentity().peerID, addresses: []))
        var mirror = MirrorConfiguration(peerPort: peerPort)
        mirror.verification = unverified ? .off : .on
        var logger = Logger(label: "mirror-node")
        logger.logLevel = .warning
        let metrics = PrometheusRegistry()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: eventLoops)
        let engine = MirrorEngine(
            configuration: mirror, router: router, eventLoopGroup: group, metricsFactory: metrics, logger: logger)
        let http = HTTPServerConfiguration(
            listen: [ListenAddress(host: "127.0.0.1", port: 0)], eventLoopGroup: group)
        let server = RegistryServer(
            configuration: .init(http: http), store: InMemoryContentStore(), missHandler: engine,
            observer: HTTPMetrics(factory: metrics), logger: logger)
        Self.report(try await server.start().first?.port ?? 0)
        await Self.inputEnds()
        await server.shutdown(gracePeriod: .zero)
        await engine.shutdown()
        try await group.shutdownGracefully()
    }

    private static func report(_ port: Int) {
        // Not print, whose buffer would keep it from a pipe.
        FileHandle.standardOutput.write(Data("\(port)\n".utf8))
    }

    private static func inputEnds() async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            Thread.detachNewThread {
                while readLine() != nil {}
                continuation.resume()
            }
        }
    }
}

/// Names one peer for every key.
private struct EverythingRouter: PeerRouter {
    let source: Peer
    let localPeer: Peer
    var isReady: Bool { true }

    func advertise(_ keys: [String]) async throws {}
    func withdraw(_ keys: [String]) async {}
    func providers(for key: String, limit: Int) -> AsyncStream<Peer> {
        AsyncStream {
            $0.yield(source)
            $0.finish()
        }
    }
    func reportUnreachable(_ peer: PeerID) {}
    func knownPeers() async -> [Peer] { [source] }
}

/// The bound: each connection is tied to one of the source's, and bytes go through in reads of 512 KiB, with
/// back-pressure and without being looked at.
private enum PlainRelay {
    static func start(upstream: Int, eventLoops: Int) async throws -> Int {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: eventLoops)
        let channel = try await ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 1024)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelInitializer { client in
                client.eventLoop.makeCompletedFuture {
                    let toClient = RelayHandler()
                    try client.pipeline.syncOperations.addHandler(toClient)
                    let bound = NIOLoopBound(toClient, eventLoop: client.eventLoop)
                    ClientBootstrap(group: client.eventLoop)
                        .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                        .channelOption(.autoRead, value: false)
                        .channelOption(.maxMessagesPerRead, value: 1)
                        .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 512 * 1024))
                        .channelOption(.writeBufferWaterMark, value: .init(low: 64 * 1024, high: 256 * 1024))
                        .channelInitializer { server in
                            server.eventLoop.makeCompletedFuture {
                                let toServer = RelayHandler()
                                try server.pipeline.syncOperations.addHandler(toServer)
                                toServer.partner = bound.value
                                bound.value.partner = toServer
                            }
                        }
                        .connect(host: "127.0.0.1", port: upstream)
                        .whenComplete { result in
                            if case .failure = result { client.close(promise: nil) } else { client.read() }
                        }
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return channel.localAddress?.port ?? 0
    }
}

private final class RelayHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    var partner: RelayHandler?
    private var context: ChannelHandlerContext?

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }
    func channelActive(context: ChannelHandlerContext) { if partner != nil { context.read() } }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard let partner, let out = partner.context else { return }
        out.writeAndFlush(partner.wrapOutboundOut(unwrapInboundIn(data)), promise: nil)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if partner?.context?.channel.isWritable ?? false { context.read() }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { partner?.context?.read() }
    }

    func channelInactive(context: ChannelHandlerContext) {
        partner?.context?.close(promise: nil)
        partner = nil
    }
}
