import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

extension Host {
    /// A secured connection to a peer: one that exists, or a new one to the first of its addresses (those given, then
    /// those known) that answers. Concurrent calls for one peer share the dials.
    ///
    /// - Parameters:
    ///   - peer: whom to expect; nil to take whoever answers, whose ID is the result.
    ///   - addresses: where to look; `/p2p/ID` endings are honoured.
    ///   - ignoringBackOff: dial addresses that failed lately as well (for bootstrapping, which has its own pace).
    /// - Throws: ``HostError``, or `CancellationError` when the task is cancelled.
    public func connect(
        to peer: PeerID?, addresses: [Multiaddr] = [], ignoringBackOff: Bool = false
    ) async throws -> PeerID {
        guard peer != peerID else { throw HostError.dialledSelf }
        let race = try state.withLockedValue { state -> DialRace? in
            switch state.phase {
            case .idle: throw HostError.notStarted
            case .stopped: throw HostError.shutDown
            case .running: break
            }
            if let peer {
                if state.connections[peer] != nil { return nil }
                if let race = state.dials[peer] { return race }
            }
            let targets = try dialTargets(peer, addresses, ignoringBackOff: ignoringBackOff, state)
            guard state.dialCount < configuration.limits.dials else { throw HostError.limitReached("dials under way") }
            let race = makeRace(peer, targets)
            if let peer { state.dials[peer] = race }
            state.dialCount += 1
            return race
        }
        guard let race else {
            guard let peer else { throw HostError.noAddresses(nil) }
            return peer
        }
        race.begin()
        return try await race.completion.wait()
    }

    private func dialTargets(
        _ peer: PeerID?, _ given: [Multiaddr], ignoringBackOff: Bool, _ state: HostState
    ) throws -> [(target: DialTarget, address: Multiaddr)] {
        let now = NIODeadline.now()
        var seen: Set<DialTarget> = []
        var isOwn = false
        var rests = false
        var targets: [(target: DialTarget, address: Multiaddr)] = []
        let known = peer.map { state.book.addresses(of: $0, now: now) } ?? []
        for address in given + known {
            if let peer, address.strippingPeerID(peer) == nil { continue }
            guard let target = DialTarget(address), seen.insert(target).inserted else { continue }
            if case .endpoint(let endpoint) = target, state.addresses.isOwn(endpoint) {
                isOwn = true
            } else if !ignoringBackOff, state.backOff.isResting(target, of: peer ?? address.peerID, now: now) {
                rests = true
            } else if targets.count < configuration.limits.dialAddresses {
                targets.append((target, address))
            }
        }
        if targets.isEmpty {
            throw rests ? HostError.backingOff(peer) : isOwn ? .dialledSelf : .noAddresses(peer)
        }
        return targets
    }

    private func makeRace(_ peer: PeerID?, _ targets: [(target: DialTarget, address: Multiaddr)]) -> DialRace {
        DialRace(targets, eventLoop: configuration.eventLoopGroup.any()) { [weak self] target, address, isOver, done in
            guard let self else { return done(.failure(HostError.shutDown)) }
            self.dial(target, address, expectedPeer: peer ?? address.peerID, isOver: isOver, done: done)
        } ended: { [weak self] in
            self?.state.withLockedValue { state in
                if let peer { state.dials[peer] = nil }
                state.dialCount -= 1
            }
        }
    }

    /// One dial: TCP and the upgrade. Whatever comes of it is told once.
    private func dial(
        _ target: DialTarget, _ address: Multiaddr, expectedPeer: PeerID?, isOver: @escaping @Sendable () -> Bool,
        done: @escaping @Sendable (Result<ConnectionHandle, HostError>) -> Void
    ) {
        let isFirst = FirstOnly()
        let finish: @Sendable (Result<ConnectionHandle, any Error>) -> Void = { result in
            guard isFirst.claim() else { return }
            self.dialEnded(target, address, expectedPeer, result)
            done(result.mapError { Self.explain($0) })
        }
        let bootstrap = ClientBootstrap(group: configuration.eventLoopGroup)
            .connectTimeout(configuration.limits.dialTimeout)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.writeBufferWaterMark, value: Self.waterMark)
            .channelOption(.autoRead, value: false)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard self.state.withLockedValue({ $0.phase == .running }) else { throw HostError.shutDown }
                    self.track(channel)
                }
            }
        let connected: EventLoopFuture<any Channel>
        switch target {
        case .name(let name, let port):
            connected = bootstrap.connect(host: name, port: Int(port))
        case .endpoint(let endpoint):
            do {
                let remote = try SocketAddress(
                    packedIPAddress: ByteBuffer(bytes: endpoint.address.bytes), port: Int(endpoint.port))
                let source = state.withLockedValue { $0.addresses.source(for: endpoint.address) }
                let bound =
                    try source.map {
                        bootstrap.bind(
                            to: try SocketAddress(packedIPAddress: ByteBuffer(bytes: $0.bytes), port: 0))
                    } ?? bootstrap
                connected = bound.connect(to: remote)
            } catch {
                finish(.failure(error))
                return
            }
        }
        // The handler comes only now, so that a failing connect has one report and a slow loser is dropped unsecured;
        // until it is there nothing is read, or the peer's first words would be lost.
        connected.flatMap { channel in
            channel.eventLoop.submit {
                guard !isOver() else {
                    channel.close(promise: nil)
                    throw HostError.connectionClosed(Self.lostRace)
                }
                let connection = try Connection(
                    eventLoop: channel.eventLoop, environment: self, role: .initiator,
                    remoteAddress: channel.remoteAddress.flatMap { IPAddress($0) }?.unmapped ?? .anyV4,
                    dialledAddress: address.withoutPeerID, expectedPeer: expectedPeer, opened: finish)
                try channel.pipeline.syncOperations.addHandler(connection)
                try channel.syncOptions?.setOption(.autoRead, value: true)
            }
        }.whenFailure { finish(.failure($0)) }
    }

    private static let lostRace = "another address answered first"

    private func dialEnded(
        _ target: DialTarget, _ address: Multiaddr, _ expectedPeer: PeerID?,
        _ result: Result<ConnectionHandle, any Error>
    ) {
        state.withLockedValue { state in
            switch result {
            case .success:
                state.backOff.succeeded(target, of: expectedPeer)
            case .failure(let error):
                if case HostError.connectionClosed(Self.lostRace) = error { return }
                if DialBackOff.counts(error) { state.backOff.failed(target, of: expectedPeer, now: .now()) }
                if case NoiseError.peerMismatch = error, let expectedPeer {
                    state.book.forget(address, of: expectedPeer)
                    if let plain = address.withoutPeerID { state.book.forget(plain, of: expectedPeer) }
                }
            }
        }
        if case .failure(let error) = result {
            configuration.logger.debug(
                "dial failed", metadata: ["address": "\(address)", "error": "\(Self.explain(error))"])
        }
    }

    private static func explain(_ error: any Error) -> HostError {
        switch error {
        case let error as HostError: error
        case NoiseError.peerMismatch(let expected, let found): .peerMismatch(expected: expected, found: found)
        default: .dialFailed("\(error)")
        }
    }
}

/// The dials of one peer's addresses: one after the other, the next starting early when one is slow; the first
/// secured connection wins.
final class DialRace: Sendable {
    /// How long an address has before the next is tried besides it.
    private static let stagger: TimeAmount = .milliseconds(250)

    private struct State {
        var hasBegun = false
        var remaining: [(target: DialTarget, address: Multiaddr)]
        var active = 0
        var failures: [(Multiaddr, HostError)] = []
    }

    /// Dials one address; asks whether the race is over before it secures the connection; reports once.
    typealias Dial =
        @Sendable (
            _ target: DialTarget, _ address: Multiaddr, _ isOver: @escaping @Sendable () -> Bool,
            _ done: @escaping @Sendable (Result<ConnectionHandle, HostError>) -> Void
        ) -> Void

    let completion = Completion<PeerID>()
    private let state: NIOLockedValueBox<State>
    private let dial: Dial
    private let ended: RunOnce
    private let eventLoop: any EventLoop

    /// - Parameter ended: called once, before the result is known to anybody.
    init(
        _ targets: [(target: DialTarget, address: Multiaddr)], eventLoop: any EventLoop, dial: @escaping Dial,
        ended: @escaping @Sendable () -> Void
    ) {
        state = NIOLockedValueBox(State(remaining: targets))
        self.eventLoop = eventLoop
        self.dial = dial
        self.ended = RunOnce(ended)
    }

    /// Starts with the first address, when it is called for the first time.
    func begin() {
        let isFirst = state.withLockedValue { state in
            defer { state.hasBegun = true }
            return !state.hasBegun
        }
        if isFirst { advance() }
    }

    private func advance() {
        guard !completion.isDone else { return }
        let next = state.withLockedValue { state -> (target: DialTarget, address: Multiaddr)? in
            guard !state.remaining.isEmpty else { return nil }
            state.active += 1
            return state.remaining.removeFirst()
        }
        guard let next else { return }
        dial(next.target, next.address, { self.completion.isDone }) { result in
            switch result {
            case .success(let handle):
                self.ended.run()
                self.completion.succeed(handle.peer)
            case .failure(let error):
                self.failed(next.address, error)
            }
        }
        if state.withLockedValue({ !$0.remaining.isEmpty }) {
            eventLoop.scheduleTask(in: Self.stagger) { self.advance() }
        }
    }

    private func failed(_ address: Multiaddr, _ error: HostError) {
        let failures = state.withLockedValue { state -> [(Multiaddr, HostError)]? in
            state.active -= 1
            state.failures.append((address, error))
            return state.active == 0 && state.remaining.isEmpty ? state.failures : nil
        }
        guard let failures else {
            advance()
            return
        }
        ended.run()
        // A single reason is told as it is.
        if failures.count == 1, let only = failures.first {
            completion.fail(only.1)
        } else {
            completion.fail(HostError.dialFailed(failures.map { "\($0.0): \($0.1)" }.joined(separator: "; ")))
        }
    }
}
