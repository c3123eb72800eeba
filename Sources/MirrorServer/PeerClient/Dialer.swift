import NIOCore
import NIOPosix
import PeerRoutingCore

/// Establishes one connection to a peer, to the first of its addresses that accepts.
///
/// Confined to its event loop. It lives until its outcome.
final class Dialer {
    /// The pause before the next address is dialled. RFC 8305 §8 recommends 250 ms for the internet; peers are near.
    static let attemptDelay: TimeAmount = .milliseconds(100)
    /// Most addresses dialled.
    static let addressLimit = 8

    private let eventLoop: any EventLoop
    private let peer: Peer
    private let port: Int
    private let memory: TransferMemory
    private let addresses: [IPAddress]
    private var attempts: HappyEyeballs
    private var channels: [Int: any Channel] = [:]
    private var timer: Scheduled<Void>?
    private var deadline: DeadlineTimer?
    private var timeout = Duration.seconds(10)
    private let clock: StallAdjustedClock
    private var completion: ((PeerConnection, IPAddress)?) -> Void

    init(
        peer: Peer, addresses: [IPAddress], port: Int, memory: TransferMemory, clock: StallAdjustedClock,
        eventLoop: any EventLoop, completion: @escaping ((PeerConnection, IPAddress)?) -> Void
    ) {
        self.peer = peer
        self.port = port
        self.memory = memory
        self.clock = clock
        self.eventLoop = eventLoop
        self.addresses = HappyEyeballs.interleaved(addresses, limit: Self.addressLimit)
        attempts = HappyEyeballs(count: self.addresses.count, attemptDelay: Self.attemptDelay)
        self.completion = completion
    }

    /// Starts; the completion is called once, not from within this call.
    func start(timeout: Duration) {
        self.timeout = timeout
        // Held strongly until the outcome.
        deadline = clock.timer(in: timeout) { self.timedOut() }
        perform(attempts.start(now: .now()))
    }

    private func timedOut() {
        perform(attempts.cancel() + [.fail])
    }

    private func perform(_ actions: [HappyEyeballs.Action]) {
        for action in actions {
            switch action {
            case .dial(let index): dial(index)
            case .abandon(let index): channels.removeValue(forKey: index)?.close(promise: nil)
            case .use(let index): use(index)
            case .fail: complete(nil)
            }
        }
        timer?.cancel()
        timer = nil
        guard let next = attempts.nextDeadline else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        timer = eventLoop.scheduleTask(deadline: next) {
            bound.value.perform(bound.value.attempts.timePassed(now: .now()))
        }
    }

    private func dial(_ index: Int) {
        let address = addresses[index]
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let target: SocketAddress
        do {
            target = try SocketAddress(ipAddress: address.description, port: port)
        } catch {
            eventLoop.execute { bound.value.perform(bound.value.attempts.failed(index, now: .now())) }
            return
        }
        let sizing = ReceiveSizing(memory: memory)
        let id = peer.id
        let authority = address.isV6 ? "[\(address)]:\(port)" : "\(address):\(port)"
        ClientBootstrap(group: eventLoop)
            // Ends attempts that were abandoned: a channel that is connecting cannot be closed from here.
            .connectTimeout(TimeAmount(timeout) + .seconds(1))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.autoRead, value: false)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.recvAllocator, value: RelayReceiveAllocator(sizing: sizing))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        PeerConnection(peer: id, authority: authority, sizing: sizing))
                }
            }
            .connect(to: target)
            .whenComplete { result in
                let dialer = bound.value
                switch result {
                case .success(let channel):
                    dialer.channels[index] = channel
                    dialer.perform(dialer.attempts.connected(index))
                case .failure:
                    dialer.perform(dialer.attempts.failed(index, now: .now()))
                }
            }
    }

    private func use(_ index: Int) {
        guard let channel = channels.removeValue(forKey: index),
            let connection = try? channel.pipeline.syncOperations.handler(type: PeerConnection.self)
        else { return complete(nil) }
        complete((connection, addresses[index]))
    }

    private func complete(_ result: (PeerConnection, IPAddress)?) {
        deadline?.cancel()
        deadline = nil
        timer?.cancel()
        let completion = completion
        self.completion = { _ in }
        completion(result)
    }
}
