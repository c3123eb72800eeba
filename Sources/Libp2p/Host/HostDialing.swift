import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import ServiceSupport

extension Host {
    /// A secured connection to a peer: one that exists, or a new one to the first of its addresses (those given, then
    /// those known) that answers. Concurrent calls for one peer share the dials.
    ///
    /// - Parameters:
    ///   - peer: The peer expected; nil to accept any, whose ID is the result.
    ///   - addresses: Where to dial; a `/p2p/ID` at the end names the peer expected there.
    ///   - ignoringBackOff: Dial addresses that are in back-off as well (for bootstrapping, which has its own pace).
    /// - Throws: ``HostError``, or `CancellationError` when the task is cancelled.
    package func connect(
        to peer: PeerID?, addresses: [Multiaddr] = [], ignoringBackOff: Bool = false
    ) async throws -> PeerID {
        guard peer != peerID else { throw HostError.dialledSelf }
        let race = try state.withLockedValue { state -> DialRace? in
            try state.requireRunning()
            if let peer {
                if state.connections.contains(peer) { return nil }
                if let race = state.dials.race(for: peer) { return race }
            }
            let candidates = try state.addressBook.candidates(
                for: peer, given: addresses, ignoringBackOff: ignoringBackOff, now: .now(),
                isOwn: state.listening.isOwn)
            try state.dials.requireRoom()
            let race = makeRace(for: peer, candidates)
            state.dials.add(race, for: peer)
            return race
        }
        guard let race else {
            guard let peer else { throw HostError.noAddresses(nil) }
            return peer
        }
        race.begin()
        return try await race.completion.wait()
    }

    private func makeRace(for peer: PeerID?, _ candidates: [AddressBook.Candidate]) -> DialRace {
        DialRace(candidates, eventLoop: configuration.eventLoopGroup.any()) { [weak self] candidate, isOver, done in
            guard let self else { return done(.failure(HostError.shutDown)) }
            self.dial(candidate, isOver: isOver, done: done)
        } ended: { [weak self] in
            self?.state.withLockedValue { $0.dials.remove(for: peer) }
        }
    }

    /// One dial: TCP and the upgrade. Calls `done` once.
    private func dial(
        _ candidate: AddressBook.Candidate, isOver: @escaping @Sendable () -> Bool,
        done: @escaping @Sendable (Result<ConnectionHandle, HostError>) -> Void
    ) {
        let isFirst = FirstOnly()
        let finish: @Sendable (Result<ConnectionHandle, any Error>) -> Void = { result in
            guard isFirst.claim() else { return }
            let result = result.mapError { HostError(dialling: $0) }
            self.dialEnded(candidate, result)
            done(result)
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
        switch candidate.target {
        case .name(let name, let port):
            connected = bootstrap.connect(host: name, port: Int(port))
        case .endpoint(let endpoint):
            do {
                let remote = try SocketAddress(
                    packedIPAddress: ByteBuffer(bytes: endpoint.address.bytes), port: Int(endpoint.port))
                let source = state.withLockedValue { $0.listening.source(for: endpoint.address) }
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
        // The handler is added only now, so that a connect that fails is reported once and one that comes too late is
        // closed before it is secured. Nothing is read before, or the peer's first bytes would be lost.
        connected.flatMap { channel in
            channel.eventLoop.submit {
                guard !isOver() else {
                    channel.close(promise: nil)
                    throw HostError.connectionClosed(Self.lostRace)
                }
                let connection = try Connection(
                    eventLoop: channel.eventLoop, environment: self, role: .initiator,
                    remoteAddress: channel.remoteAddress.flatMap { IPAddress($0) }?.unmapped ?? .anyV4,
                    dialledAddress: candidate.address.withoutPeerID, expectedPeer: candidate.peer, opened: finish)
                try channel.pipeline.syncOperations.addHandler(connection)
                try channel.syncOptions?.setOption(.autoRead, value: true)
            }
        }.whenFailure { finish(.failure($0)) }
    }

    private static let lostRace = "another address was connected first"

    private func dialEnded(_ candidate: AddressBook.Candidate, _ result: Result<ConnectionHandle, HostError>) {
        switch result {
        case .success:
            state.withLockedValue { $0.addressBook.dialSucceeded(candidate) }
        case .failure(let error):
            if error != .connectionClosed(Self.lostRace) {
                state.withLockedValue { $0.addressBook.dialFailed(candidate, error, now: .now()) }
            }
            configuration.logger.debug(
                "dial failed", metadata: ["address": "\(candidate.address)", "error": "\(error)"])
        }
    }
}

extension HostError {
    /// What ended a dial, as the host's own error.
    fileprivate init(dialling error: any Error) {
        switch error {
        case let error as HostError: self = error
        case NoiseError.peerMismatch(let expected, let found): self = .peerMismatch(expected: expected, found: found)
        default: self = .dialFailed(plainReason(error))
        }
    }
}

/// The dials of one peer's addresses; the first secured connection wins. ``HappyEyeballs`` decides when each is dialled.
final class DialRace: Sendable {
    /// How long an address has before the next is dialled besides it.
    private static let attemptDelay: TimeAmount = .milliseconds(250)

    private struct State {
        var hasBegun = false
        var attempts: HappyEyeballs
        var failures: [(Multiaddr, HostError)] = []
    }

    /// Dials one address; asks whether the race is over before it secures the connection; calls `done` once.
    typealias Dial =
        @Sendable (
            _ candidate: AddressBook.Candidate, _ isOver: @escaping @Sendable () -> Bool,
            _ done: @escaping @Sendable (Result<ConnectionHandle, HostError>) -> Void
        ) -> Void

    let completion = Completion<PeerID>()
    private let candidates: [AddressBook.Candidate]
    private let state: NIOLockedValueBox<State>
    private let dial: Dial
    private let ended: RunOnce
    private let eventLoop: any EventLoop

    /// - Parameter ended: Called once, before ``completion`` has the result.
    init(
        _ candidates: [AddressBook.Candidate], eventLoop: any EventLoop, dial: @escaping Dial,
        ended: @escaping @Sendable () -> Void
    ) {
        self.candidates = candidates
        state = NIOLockedValueBox(
            State(attempts: HappyEyeballs(count: candidates.count, attemptDelay: Self.attemptDelay)))
        self.eventLoop = eventLoop
        self.dial = dial
        self.ended = RunOnce(ended)
    }

    /// Dials the first address. Further calls do nothing.
    func begin() {
        perform { state in
            guard !state.hasBegun else { return [] }
            state.hasBegun = true
            return state.attempts.start(now: .now())
        }
    }

    /// Changes the state, then does what that asks for.
    private func perform(_ change: (inout State) -> [HappyEyeballs.Action]) {
        let (actions, deadline) = state.withLockedValue { state in
            (change(&state), state.attempts.nextDeadline)
        }
        for action in actions {
            switch action {
            case .dial(let index): dial(index)
            case .use, .fail: ended.run()
            // A dial that comes too late sees `isOver`; one that is being secured becomes a further connection.
            case .abandon: break
            }
        }
        guard actions.contains(where: \.isDial), let deadline else { return }
        eventLoop.scheduleTask(deadline: deadline) {
            // Does nothing when a failure has started the next dial earlier, which has a task of its own.
            self.perform { $0.attempts.timePassed(now: .now()) }
        }
    }

    private func dial(_ index: Int) {
        let candidate = candidates[index]
        dial(candidate, { self.completion.isDone }) { result in
            switch result {
            case .success(let handle):
                self.perform { $0.attempts.connected(index) }
                self.completion.succeed(handle.peer)
            case .failure(let error):
                self.failed(index, error)
            }
        }
    }

    private func failed(_ index: Int, _ error: HostError) {
        var failures: [(Multiaddr, HostError)]?
        perform { state in
            state.failures.append((candidates[index].address, error))
            let actions = state.attempts.failed(index, now: .now())
            if actions.contains(.fail) { failures = state.failures }
            return actions
        }
        guard let failures else { return }
        if failures.count == 1, let only = failures.first {
            completion.fail(only.1)
        } else {
            completion.fail(HostError.dialFailed(failures.map { "\($0.0): \($0.1)" }.joined(separator: "; ")))
        }
    }
}
