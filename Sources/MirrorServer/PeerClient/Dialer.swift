import NIOCore
import NIOPosix
import PeerRoutingCore

/// Establishes one connection to a peer. Of a peer with several addresses each is a ``PeerEndpoint``, of which a race asks
/// one after the other.
///
/// Confined to its event loop. It lives until its outcome.
final class Dialer {
    private let eventLoop: any EventLoop
    private let peer: PeerEndpoint
    private let port: Int
    private let memory: TransferMemory
    private let clock: StallAdjustedClock
    private var deadline: DeadlineTimer?
    /// Nil once it was called.
    private var completion: ((PeerConnection?) -> Void)?

    init(
        peer: PeerEndpoint, port: Int, memory: TransferMemory, clock: StallAdjustedClock, eventLoop: any EventLoop,
        completion: @escaping (PeerConnection?) -> Void
    ) {
        self.peer = peer
        self.port = port
        self.memory = memory
        self.clock = clock
        self.eventLoop = eventLoop
        self.completion = completion
    }

    /// Starts; the completion is called once, not from within this call.
    func start(timeout: Duration) {
        // Held strongly until the outcome.
        deadline = clock.timer(in: timeout) { self.complete(nil) }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let target: SocketAddress
        do {
            target = try SocketAddress(ipAddress: peer.address.description, port: port)
        } catch {
            return eventLoop.execute { bound.value.complete(nil) }
        }
        let sizing = ReceiveSizing(memory: memory)
        let peer = peer
        let authority = peer.address.isV6 ? "[\(peer.address)]:\(port)" : "\(peer.address):\(port)"
        ClientBootstrap(group: eventLoop)
            // Ends what outlives the deadline: a channel that is connecting cannot be closed from here.
            .connectTimeout(TimeAmount(timeout) + .seconds(1))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.autoRead, value: false)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.recvAllocator, value: RelayReceiveAllocator(sizing: sizing))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        PeerConnection(peer: peer, authority: authority, sizing: sizing))
                }
            }
            .connect(to: target)
            .whenComplete { result in
                switch result {
                case .success(let channel): bound.value.connected(channel)
                case .failure: bound.value.complete(nil)
                }
            }
    }

    private func connected(_ channel: any Channel) {
        guard completion != nil,
            let connection = try? channel.pipeline.syncOperations.handler(type: PeerConnection.self)
        else {
            channel.close(promise: nil)
            return complete(nil)
        }
        complete(connection)
    }

    private func complete(_ connection: PeerConnection?) {
        deadline?.cancel()
        deadline = nil
        let completion = completion
        self.completion = nil
        completion?(connection)
    }
}
