import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import OCIDistribution
import PeerRouting

/// The fault of a ``FaultyPeer``.
enum Fault: String, CaseIterable, Sendable {
    case none
    /// One byte in the middle is wrong.
    case wrongByte
    /// The last byte is wrong.
    case wrongLastByte
    /// Half of the content, with the length of that half.
    case truncated
    /// `Content-Length` is larger than the body, then the connection is closed.
    case wrongLengthTooLong
    /// No `Content-Length`.
    case noLength
    /// No response.
    case stallBeforeHead
    /// Half of the body, then nothing.
    case stallInBody
    /// The connection is closed in the middle of the body.
    case closedInBody
    /// The connection is reset in the middle of the body.
    case resetInBody
    /// The connection is closed before a response.
    case closedBeforeHead
    /// A few bytes at a time.
    case trickle
    /// The response comes after a pause, but in time.
    case late
    /// The response comes after every deadline.
    case tooLate
    case status500
    case status404
    case busy
    /// 401 unless the request has credentials.
    case asksForCredentials
    /// `text/html`.
    case wrongType
    /// `Docker-Content-Digest` of something else.
    case wrongDigest
    /// 200 with everything to a request for a range.
    case ignoresRange
    /// Closes in the body, and states a larger size in the next response.
    case changedLength
    /// Closes in the body, and responds to the next request with another range.
    case wrongRange
    /// Bytes after the end of the body.
    case tooMuch
    /// Bytes that are not HTTP.
    case garbage
    /// No process listens.
    case refused
    /// Connections are accepted by the system and never read.
    case unresponsive
}

/// A registry that serves its contents with a fault.
final class FaultyPeer: Sendable {
    struct Content: Sendable {
        var bytes: SharedBytes
        var type: String
        /// The digest it claims to have; nil for its own.
        var claimedDigest: String?
    }

    struct State {
        var contents: [String: Content] = [:]
        var fault: Fault
        var requests: [String] = []
        var bodyBytes = 0
        /// Whether the first byte of every body is wrong.
        var hasWrongFirstByte = false
        /// Responses held until ``FaultyPeer/release()``; nil when none is held.
        var held: [@Sendable () -> Void]?
        /// Bytes of all bodies at which the peer pauses; nil for never.
        var pausesAt: Int?
        /// Bodies that are paused.
        var paused: [@Sendable () -> Void] = []
        var connections: [ObjectIdentifier: any Channel] = [:]
        var isKilled = false
    }

    let state: NIOLockedValueBox<State>
    private let listener: NIOLockedValueBox<(any Channel)?>
    let address: IPAddress
    let port: Int

    static let group = MultiThreadedEventLoopGroup.singleton

    private init(state: NIOLockedValueBox<State>, listener: (any Channel)?, address: IPAddress, port: Int) {
        self.state = state
        self.listener = NIOLockedValueBox(listener)
        self.address = address
        self.port = port
    }

    /// Starts listening.
    ///
    /// - Parameters:
    ///   - address: nil for an unused one.
    ///   - port: 0 for an unused one; another peer's port is free on an address of its own.
    static func start(at address: IPAddress? = nil, port: Int = 0, fault: Fault = .none) async throws -> FaultyPeer {
        let state = NIOLockedValueBox(State(fault: fault))
        let address = address ?? unusedAddress()
        let listener = try await ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.backlog, value: 4096)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.allowRemoteHalfClosure, value: false)
            .childChannelOption(.writeBufferWaterMark, value: .init(low: 128 * 1024, high: 512 * 1024))
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if fault == .unresponsive {
                        return
                    }
                    try channel.pipeline.syncOperations.addHandler(FaultyHandler(state: state))
                }
            }
            .bind(host: "\(address)", port: port).get()
        let bound = listener.localAddress?.port ?? 0
        if fault == .refused {
            try await listener.close()
            return FaultyPeer(state: state, listener: nil, address: address, port: bound)
        }
        return FaultyPeer(state: state, listener: listener, address: address, port: bound)
    }

    func serve(_ bytes: SharedBytes, type: String = "application/octet-stream") {
        state.withLockedValue { $0.contents["\(bytes.digest)"] = Content(bytes: bytes, type: type) }
    }

    func serve(_ bytes: SharedBytes, tag: String, type: String) {
        state.withLockedValue { $0.contents[tag] = Content(bytes: bytes, type: type) }
    }

    /// Serves content under a digest that is not its own.
    func serve(_ bytes: SharedBytes, as name: String) {
        state.withLockedValue {
            $0.contents[name] = Content(bytes: bytes, type: "application/octet-stream", claimedDigest: name)
        }
    }

    /// Responses that are held.
    var heldCount: Int { state.withLockedValue { $0.held?.count ?? 0 } }

    func setFault(_ fault: Fault) { state.withLockedValue { $0.fault = fault } }

    /// Whether the first byte of every body is wrong.
    func setWrongFirstByte(_ isWrong: Bool) { state.withLockedValue { $0.hasWrongFirstByte = isWrong } }

    /// Holds the responses to requests from now on until ``release()``; they have the fault that is set then.
    func hold() { state.withLockedValue { if $0.held == nil { $0.held = [] } } }

    /// Sends the responses that are held, and holds no more.
    func release() {
        let held = state.withLockedValue { state in
            defer { state.held = nil }
            return state.held ?? []
        }
        for respond in held { respond() }
    }

    /// Pauses in a body when this many bytes of all bodies have been sent, until ``resume()``.
    func pause(at bytes: Int) { state.withLockedValue { $0.pausesAt = bytes } }

    /// Continues paused bodies, and pauses no more.
    func resume() {
        let paused = state.withLockedValue { state in
            defer { (state.pausesAt, state.paused) = (nil, []) }
            return state.paused
        }
        for resume in paused { resume() }
    }

    var requests: [String] { state.withLockedValue { $0.requests } }
    var bodyBytes: Int { state.withLockedValue { $0.bodyBytes } }

    /// Accepts no more connections; open ones continue.
    func stopListening() async {
        try? await listener.withLockedValue { listener -> (any Channel)? in
            defer { listener = nil }
            return listener
        }?.close()
    }

    /// Ends as a killed process does: no socket listens and every connection is reset.
    func kill() async {
        await stopListening()
        let connections = state.withLockedValue { state in
            state.isKilled = true
            return Array(state.connections.values)
        }
        for channel in connections { await Self.reset(channel) }
    }

    /// Closes with a reset.
    static func reset(_ channel: any Channel) async {
        try? await (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).get()
        try? await channel.close()
    }
}

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// One connection of a ``FaultyPeer``.
private final class FaultyHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let state: NIOLockedValueBox<FaultyPeer.State>
    private var received = ByteBuffer()
    private var body: ByteBuffer?
    /// Bytes of the body after which ``onStop`` is called.
    private var stopAt: Int?
    private var onStop: ((ChannelHandlerContext) -> Void)?
    /// The delay of that call.
    private var stopDelay = TimeAmount.zero
    private var extra: ByteBuffer?
    /// Positions in the body with a wrong byte.
    private var flips: [Int] = []

    init(state: NIOLockedValueBox<FaultyPeer.State>) { self.state = state }

    func channelActive(context: ChannelHandlerContext) {
        let channel = context.channel
        let isKilled = state.withLockedValue { state in
            state.connections[ObjectIdentifier(channel)] = channel
            return state.isKilled
        }
        if isKilled { context.close(promise: nil) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        let id = ObjectIdentifier(context.channel)
        state.withLockedValue { $0.connections[id] = nil }
        body = nil
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        received.writeBuffer(&bytes)
        answerNext(context)
    }

    private func answerNext(_ context: ChannelHandlerContext) {
        guard body == nil, let end = received.readableBytesView.firstRange(of: Array("\r\n\r\n".utf8)) else { return }
        let head = received.readString(length: end.upperBound - received.readerIndex) ?? ""
        answer(head, context)
    }

    private func answer(_ head: String, _ context: ChannelHandlerContext) {
        let lines = head.split(separator: "\r\n")
        let parts = lines[0].split(separator: " ")
        let isHead = parts[0] == "HEAD"
        let path = parts[1].prefix { $0 != "?" }
        let name = String(path.split(separator: "/").last ?? "")
        let range =
            lines.first { $0.lowercased().hasPrefix("range:") }
            .flatMap { try? ByteRange.parse($0.dropFirst(6)) } ?? nil
        let isMirrored = lines.contains { $0.lowercased() == "x-spegel-mirrored: true" }
        let (content, fault, earlier) = state.withLockedValue { state in
            let earlier = state.requests.count(where: { $0.contains(name) })
            state.requests.append(head)
            return (state.contents[name], state.fault, earlier)
        }
        let loop = context.eventLoop
        let bound = NIOLoopBound((self, context), eventLoop: loop)
        let isHeld = state.withLockedValue { state in
            state.held?.append {
                loop.execute {
                    let (handler, context) = bound.value
                    guard context.channel.isActive else { return }
                    // As if it had been received now.
                    handler.state.withLockedValue { state in
                        if let index = state.requests.firstIndex(of: head) { state.requests.remove(at: index) }
                    }
                    handler.answer(head, context)
                }
            }
            return state.held != nil
        }
        if isHeld { return }
        guard isMirrored else {
            return send(context, status: "400 No Loop", fields: ["Content-Length: 0"], ByteBuffer())
        }
        guard let content else {
            return send(context, status: "404 Not Found", fields: ["Content-Length: 0"], ByteBuffer())
        }
        switch fault {
        case .stallBeforeHead: return
        case .closedBeforeHead: return context.close(promise: nil)
        case .status500:
            return send(context, status: "500 Oh No", fields: ["Content-Length: 4"], ByteBuffer(string: "oops"), isHead)
        case .status404:
            return send(
                context, status: "404 Not Found", fields: ["Content-Length: 4"], ByteBuffer(string: "none"), isHead)
        case .asksForCredentials where !head.lowercased().contains("\r\nauthorization:"):
            return send(
                context, status: "401 Unauthorized",
                fields: ["WWW-Authenticate: Basic realm=\"spegel\"", "Content-Length: 2"], ByteBuffer(string: "no"),
                isHead)
        case .busy:
            return send(context, status: "503 Busy", fields: ["Content-Length: 4"], ByteBuffer(string: "busy"), isHead)
        case .garbage:
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: "SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n")), promise: nil)
        case .late, .tooLate:
            loop.scheduleTask(in: fault == .late ? .milliseconds(150) : .seconds(30)) {
                let (handler, context) = bound.value
                if context.channel.isActive { handler.deliver(content, range, isHead, .none, 0, context) }
            }
        default:
            deliver(content, range, isHead, fault, earlier, context)
        }
    }

    private func deliver(
        _ content: FaultyPeer.Content, _ asked: ByteRange?, _ isHead: Bool, _ fault: Fault, _ earlier: Int,
        _ context: ChannelHandlerContext
    ) {
        let size = content.bytes.count
        var range = 0..<size
        var status = "200 OK"
        var fields: [String] = []
        var total = size
        if fault == .truncated { range = 0..<(size / 2); total = size / 2 }
        if fault == .changedLength, earlier > 0 { total = size + 1 }
        if let asked, fault != .ignoresRange, let part = try? asked.resolve(size: Int64(total)) {
            range = Int(part.lowerBound)..<min(Int(part.upperBound), size)
            if fault == .wrongRange, earlier > 0, range.count > 1 { range = range.lowerBound..<(range.upperBound - 1) }
            status = "206 Partial Content"
            fields.append("Content-Range: bytes \(range.lowerBound)-\(range.upperBound - 1)/\(total)")
        }
        let bytes = content.bytes.slice(range)
        var flips: [Int] = []
        if state.withLockedValue({ $0.hasWrongFirstByte }), range.lowerBound == 0 { flips.append(0) }
        switch fault {
        case .wrongByte: flips.append(bytes.readableBytes / 2)
        case .wrongLastByte: flips.append(bytes.readableBytes - 1)
        default: break
        }
        if fault != .noLength {
            fields.append("Content-Length: \(bytes.readableBytes + (fault == .wrongLengthTooLong ? 1000 : 0))")
        } else {
            fields.append("Connection: close")
        }
        fields.append("Content-Type: \(fault == .wrongType ? "text/html" : content.type)")
        let digest = fault == .wrongDigest ? Digest.hash(of: "something else".utf8) : content.bytes.digest
        fields.append("Docker-Content-Digest: \(content.claimedDigest ?? "\(digest)")")
        let half = max(1, bytes.readableBytes / 2)
        stopDelay = .milliseconds(20)
        switch fault {
        case .stallInBody:
            stopAt = half
            onStop = { _ in }
        case .trickle:
            stopAt = half
            onStop = { [weak self] context in self?.trickle(context) }
        case .closedInBody, .changedLength, .wrongRange:
            stopAt = half
            onStop = { $0.close(promise: nil) }
        case .resetInBody:
            stopAt = half
            // A reset discards what the other side's system has not received yet.
            stopDelay = .milliseconds(200)
            onStop = { context in
                let channel = context.channel
                Task { await FaultyPeer.reset(channel) }
            }
        case .wrongLengthTooLong, .noLength:
            stopAt = bytes.readableBytes
            onStop = { $0.close(promise: nil) }
        case .tooMuch:
            extra = ByteBuffer(string: "and another thing")
        default: break
        }
        send(context, status: status, fields: fields, bytes, isHead, flips: flips)
    }

    private func flip(_ bytes: inout ByteBuffer, at index: Int) {
        guard index >= 0, index < bytes.readableBytes else { return }
        let position = bytes.readerIndex + index
        bytes.setInteger((bytes.getInteger(at: position, as: UInt8.self) ?? 0) ^ 0xff, at: position)
    }

    private func send(
        _ context: ChannelHandlerContext, status: String, fields: [String], _ bytes: ByteBuffer, _ isHead: Bool = false,
        flips: [Int] = []
    ) {
        let head = "HTTP/1.1 \(status)\r\n" + fields.map { $0 + "\r\n" }.joined() + "\r\n"
        context.write(wrapOutboundOut(ByteBuffer(string: head)), promise: nil)
        body = isHead ? ByteBuffer() : bytes
        self.flips = flips
        sent = 0
        pump(context)
    }

    private var sent = 0

    func channelWritabilityChanged(context: ChannelHandlerContext) { pump(context) }

    private func pump(_ context: ChannelHandlerContext) {
        while context.channel.isWritable, var rest = body {
            var count = min(rest.readableBytes, 256 * 1024)
            if let stopAt { count = min(count, stopAt - sent) }
            guard let allowed = take(count, context) else { return context.flush() }
            count = allowed
            if count > 0, var piece = rest.readSlice(length: count) {
                for index in flips where index >= sent && index < sent + count { flip(&piece, at: index - sent) }
                sent += count
                body = rest
                context.writeAndFlush(wrapOutboundOut(piece), promise: nil)
            } else {
                context.flush()
            }
            if let stopAt, sent >= stopAt {
                let stop = onStop
                (self.stopAt, onStop) = (nil, nil)
                paused = rest
                body = nil
                let (loop, delay) = (context.eventLoop, stopDelay)
                let bound = NIOLoopBound((self, context, stop), eventLoop: loop)
                // After what was written has been sent.
                let written = loop.makePromise(of: Void.self)
                written.futureResult.whenSuccess { _ in
                    loop.scheduleTask(in: delay) { bound.value.2?(bound.value.1) }
                }
                context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: written)
                return
            }
            if rest.readableBytes == 0 {
                body = nil
                if let extra {
                    self.extra = nil
                    context.writeAndFlush(wrapOutboundOut(extra), promise: nil)
                }
                answerNext(context)
                return
            }
        }
    }

    /// How many of `count` bytes may be sent now; nil while the peer is paused, after which the body continues.
    private func take(_ count: Int, _ context: ChannelHandlerContext) -> Int? {
        let loop = context.eventLoop
        let bound = NIOLoopBound((self, context), eventLoop: loop)
        return state.withLockedValue { state -> Int? in
            let allowed = state.pausesAt.map { min(count, max(0, $0 - state.bodyBytes)) } ?? count
            guard allowed > 0 || count == 0 else {
                state.paused.append {
                    loop.execute {
                        let (handler, context) = bound.value
                        if context.channel.isActive { handler.pump(context) }
                    }
                }
                return nil
            }
            state.bodyBytes += allowed
            return allowed
        }
    }

    private var paused: ByteBuffer?

    private func trickle(_ context: ChannelHandlerContext) {
        guard context.channel.isActive, var rest = paused,
            let piece = rest.readSlice(length: min(3, rest.readableBytes))
        else { return }
        paused = rest
        context.writeAndFlush(wrapOutboundOut(piece), promise: nil)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .milliseconds(20)) { bound.value.0.trickle(bound.value.1) }
    }
}
