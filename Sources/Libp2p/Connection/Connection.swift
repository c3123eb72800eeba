import DequeModule
import Logging
import NIOCore

/// One connection: the only channel handler of its channel. Upgrades it, then runs its streams.
///
/// Everything happens on the channel's event loop. Outgoing stream data waits in the streams until both the peer's
/// window and the channel take it; only small frames (acknowledgements, pings, window updates) go out unasked, and when
/// the peer does not read those, this side stops reading from it.
final class Connection: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = Never
    typealias OutboundIn = Never
    typealias OutboundOut = ByteBuffer

    enum StreamCategory: Hashable {
        case negotiating, identify, ping
        case message(String)
        case outbound
    }

    enum Phase {
        case upgrading(ConnectionUpgrade)
        case open
        case closed
    }

    /// Bytes encrypted and written at a time.
    static let flushSize = 64 << 10

    let eventLoop: any EventLoop
    let environment: any ConnectionEnvironment
    let role: NoiseHandshake.Role
    /// Where the peer is; for a dialled name known once connected.
    private(set) var remoteAddress: IPAddress
    let dialledAddress: Multiaddr?
    /// Known once the connection is open.
    private(set) var handle: ConnectionHandle?
    private(set) var lastReceived: NIODeadline

    private(set) var phase: Phase
    private(set) var closeReason: String?
    private var context: ChannelHandlerContext?
    private var input = ByteBuffer()
    private var plaintext = ByteBuffer()
    private var transport: NoiseTransport?
    private var isProcessing = false
    private var isFlushing = false

    // What follows belongs to the streams, which are kept in `Connection+Streams.swift`.
    var session: YamuxSession
    var streams: [UInt32: MuxedStream] = [:]
    var streamCounts: [StreamCategory: Int] = [:]
    var sendQueue = Deque<MuxedStream>()
    /// Streams to open when others have ended, each with the deadline of its wait. At most ``HostLimits/waitingStreams``.
    var waiting = Deque<(handler: any StreamHandler, until: NIODeadline)>()
    /// While above zero nothing is flushed, so that what belongs together goes out together.
    var batchDepth = 0
    /// The latest identify request.
    weak var identifyRequester: IdentifyRequester?

    private var pendingWriteBytes = 0
    private var lastWriteProgress: NIODeadline
    private var readHeldBack = false
    private let upgradeDeadline: NIODeadline
    private var hasBegun = false
    private var pingSent: NIODeadline?
    private var scheduledWake: (time: NIODeadline, task: Scheduled<Void>)?
    private var opened: (@Sendable (Result<ConnectionHandle, any Error>) -> Void)?

    var limits: HostLimits { environment.limits }
    var logger: Logger { environment.logger }

    /// - Parameters:
    ///   - opened: called once, when the connection is secured and registered, or with why it is not.
    init(
        eventLoop: any EventLoop, environment: any ConnectionEnvironment, role: NoiseHandshake.Role,
        remoteAddress: IPAddress, dialledAddress: Multiaddr?, expectedPeer: PeerID?,
        opened: (@Sendable (Result<ConnectionHandle, any Error>) -> Void)? = nil
    ) throws {
        self.eventLoop = eventLoop
        self.environment = environment
        self.role = role
        self.remoteAddress = remoteAddress
        self.dialledAddress = dialledAddress
        self.opened = opened
        phase = .upgrading(
            try ConnectionUpgrade(
                role: role, identity: environment.identity, expectedPeer: expectedPeer,
                earlyMuxer: environment.offersEarlyMuxer))
        session = YamuxSession(
            isClient: role == .initiator, maximumInboundStreams: environment.limits.inboundStreams,
            maximumOutboundStreams: environment.limits.outboundStreams)
        lastReceived = eventLoop.now
        lastWriteProgress = eventLoop.now
        upgradeDeadline = eventLoop.now + environment.limits.upgradeTimeout
    }

    // MARK: Channel events

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive {
            begin()
        } else if role == .initiator {
            // Added once connected, so it must have been closed since.
            end("closed by the peer")
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        end("handler removed")
        self.context = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        begin()
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        end(closeReason ?? "closed by the peer")
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        close("\(error)")
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        lastReceived = eventLoop.now
        pingSent = nil
        if input.readableBytes == 0 { input = bytes } else { input.writeBuffer(&bytes) }
        process()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        flush()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        flush()
    }

    func read(context: ChannelHandlerContext) {
        if pendingWriteBytes > limits.outboundBufferMaximum {
            readHeldBack = true
        } else {
            context.read()
        }
    }

    // MARK: Receiving

    private func begin() {
        guard case .upgrading(let upgrade) = phase, !hasBegun else { return }
        hasBegun = true
        if let address = context?.remoteAddress.flatMap({ IPAddress($0) }) { remoteAddress = address.unmapped }
        var output = ByteBuffer()
        upgrade.start(into: &output)
        write(output)
        wake(by: upgradeDeadline)
    }

    private func process() {
        guard !isProcessing else { return }
        isProcessing = true
        batchDepth += 1
        defer {
            isProcessing = false
            batchDepth -= 1
        }
        do {
            if case .upgrading(var upgrade) = phase {
                var output = ByteBuffer()
                defer { write(output) }
                let result = try upgrade.receive(&input, output: &output)
                phase = .upgrading(upgrade)
                if let result {
                    // The last bytes of the upgrade are sent before anything of the open connection.
                    write(output)
                    output.clear()
                    try open(result)
                }
            }
            while case .open = phase {
                try processPlaintext()
                guard case .open = phase, try transport?.decryptNext(from: &input, into: &plaintext) == true else {
                    break
                }
            }
        } catch {
            fail(error)
        }
        // A buffer keeps the room of what was read. Without copies of the rest (of a yamux header at most eleven bytes, of a
        // Noise message its beginning) a peer that never completes it would make this connection keep all that it sent.
        plaintext.dropReadBytes()
        input.dropReadBytes()
    }

    private func processPlaintext() throws {
        while case .open = phase {
            do {
                guard let event = try session.nextEvent(from: &plaintext) else { return }
                handle(event)
            } catch {
                // A go-away frame is in the session's output.
                batchDepth = 0
                flush()
                batchDepth = 1
                throw error
            }
        }
    }

    private func open(_ result: ConnectionUpgrade.Result) throws {
        // Writing the last of the upgrade may have found the channel closed.
        guard let context, phaseIsUpgrading else { return }
        let handle = ConnectionHandle(
            peer: result.peer, isOutbound: role == .initiator, usedEarlyMuxer: result.earlyMuxer,
            remoteAddress: remoteAddress, dialledAddress: dialledAddress, channel: context.channel,
            connection: NIOLoopBound(self, eventLoop: eventLoop))
        transport = result.transport
        plaintext = result.plaintext
        phase = .open
        self.handle = handle
        try environment.connectionOpened(handle)
        let opened = opened
        self.opened = nil
        opened?(.success(handle))
        wake(by: lastReceived + limits.keepAliveInterval)
        identifyPeer()
    }

    /// The room held for decrypted bytes, for tests.
    var plaintextCapacity: Int { plaintext.capacity }

    // MARK: Sending

    /// Sends the session's frames and as much stream data as the windows and the channel allow.
    func flush() {
        guard case .open = phase, !isFlushing, batchDepth == 0, let context else { return }
        isFlushing = true
        defer { isFlushing = false }
        repeat {
            collectStreamData(while: context.channel.isWritable)
            var output = session.takeOutput()
            guard output.readableBytes > 0 else { return }
            var ciphertext = ByteBuffer()
            do {
                try transport?.encrypt(&output, into: &ciphertext)
            } catch {
                fail(error)
                return
            }
            write(ciphertext)
        } while context.channel.isWritable && isOpen
    }

    var isOpen: Bool {
        if case .open = phase { true } else { false }
    }

    private func write(_ bytes: ByteBuffer) {
        guard bytes.readableBytes > 0, let context else { return }
        if pendingWriteBytes == 0 {
            lastWriteProgress = eventLoop.now
            wake(by: lastWriteProgress + limits.writeTimeout)
        }
        let count = bytes.readableBytes
        pendingWriteBytes += count
        let promise = eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { _ in self.wrote(count) }
        context.writeAndFlush(wrapOutboundOut(bytes), promise: promise)
    }

    private func wrote(_ count: Int) {
        pendingWriteBytes -= count
        lastWriteProgress = eventLoop.now
        if readHeldBack, pendingWriteBytes <= limits.outboundBufferMaximum / 2 {
            readHeldBack = false
            context?.read()
        }
    }

    // MARK: Time

    /// Schedules a check of the deadlines at `time` or earlier.
    func wake(by time: NIODeadline) {
        if let scheduledWake {
            guard time < scheduledWake.time else { return }
            scheduledWake.task.cancel()
        }
        guard closeReason == nil || context != nil else { return }
        let task = eventLoop.assumeIsolated().scheduleTask(deadline: time) { self.wakeUp() }
        scheduledWake = (time, task)
    }

    private func wakeUp() {
        scheduledWake = nil
        let now = eventLoop.now
        var next = NIODeadline.distantFuture
        switch phase {
        case .closed:
            return
        case .upgrading:
            if now >= upgradeDeadline {
                close("upgrade timeout")
                return
            }
            next = upgradeDeadline
        case .open:
            guard checkKeepAlive(now, &next) else { return }
        }
        if pendingWriteBytes > 0 {
            if now - lastWriteProgress >= limits.writeTimeout {
                close("write timeout: the peer does not read")
                return
            }
            next = min(next, lastWriteProgress + limits.writeTimeout)
        }
        next = min(next, expireStreams(now))
        flush()
        if isOpen || phaseIsUpgrading, next != .distantFuture { wake(by: next) }
    }

    private var phaseIsUpgrading: Bool {
        if case .upgrading = phase { true } else { false }
    }

    /// False when the connection has been closed as dead.
    private func checkKeepAlive(_ now: NIODeadline, _ next: inout NIODeadline) -> Bool {
        if let pingSent {
            if now - pingSent >= limits.keepAliveTimeout {
                close("keepalive timeout")
                return false
            }
            next = pingSent + limits.keepAliveTimeout
        } else if now - lastReceived >= limits.keepAliveInterval {
            session.ping(UInt32(truncatingIfNeeded: now.uptimeNanoseconds))
            pingSent = now
            next = now + limits.keepAliveTimeout
        } else {
            next = lastReceived + limits.keepAliveInterval
        }
        return true
    }

    // MARK: Closing

    private func fail(_ error: any Error) {
        if let opened {
            self.opened = nil
            opened(.failure(error))
        }
        close("\(error)")
    }

    /// Sends a go-away frame when the connection is open, and closes the channel.
    func close(_ reason: String) {
        guard closeReason == nil else { return }
        closeReason = reason
        if isOpen {
            session.goAway(code: 0)
            var output = session.takeOutput()
            var ciphertext = ByteBuffer()
            if (try? transport?.encrypt(&output, into: &ciphertext)) != nil { write(ciphertext) }
        }
        end(reason)
        context?.close(promise: nil)
    }

    private func end(_ reason: String) {
        if case .closed = phase { return }
        phase = .closed
        closeReason = closeReason ?? reason
        scheduledWake?.task.cancel()
        scheduledWake = nil
        // First, so that a retry does not find this connection again.
        environment.connectionEnded(handle, remoteAddress: remoteAddress, reason: reason)
        endStreams(reason)
        let opened = opened
        self.opened = nil
        opened?(.failure(HostError.connectionClosed(reason)))
        // The handle refers to this connection, which would otherwise never be freed; streams needed it until here.
        handle = nil
        transport = nil
        input = ByteBuffer()
        plaintext = ByteBuffer()
    }
}

extension ByteBuffer {
    /// Keeps only what is still to be read, in a buffer of that size.
    fileprivate mutating func dropReadBytes() {
        self = readableBytes == 0 ? ByteBuffer() : ByteBuffer(bytes: readableBytesView)
    }
}
