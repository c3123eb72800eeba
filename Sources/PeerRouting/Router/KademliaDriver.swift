import Logging
import NIOCore

/// Connects a ``KademliaNode`` to a ``Host``: carries its actions out and tells it what happened.
///
/// The node lives on one event loop and is touched nowhere else. One timer is set at a time, for the node's next
/// deadline: an idle node sleeps.
final class KademliaDriver: Sendable {
    /// What lives on the event loop.
    private final class State {
        var node: KademliaNode
        var streams: [LookupID: AsyncStream<Peer>.Continuation] = [:]
        var nextLookup: UInt64 = 0
        var timer: Scheduled<Void>?
        var timerDeadline: NIODeadline?
        var isStopped = false

        init(node: KademliaNode) {
            self.node = node
        }
    }

    let host: Host
    let eventLoop: any EventLoop
    private let state: NIOLoopBoundBox<State>
    private let protocolID: String
    private let policy: AddressPolicy
    private let logger: Logger
    /// Told after every change, on the event loop.
    private let onChange: @Sendable (_ tableCount: Int, _ hasLookedAround: Bool) -> Void
    private let onConnectivity: @Sendable (_ isOnline: Bool) -> Void

    init(
        host: Host, protocolID: String, configuration: KademliaConfiguration, policy: AddressPolicy,
        eventLoop: any EventLoop, logger: Logger, onChange: @escaping @Sendable (Int, Bool) -> Void,
        onConnectivity: @escaping @Sendable (Bool) -> Void
    ) {
        self.host = host
        self.eventLoop = eventLoop
        self.protocolID = protocolID
        self.policy = policy
        self.logger = logger
        self.onChange = onChange
        self.onConnectivity = onConnectivity
        let node = KademliaNode(
            local: host.peerID, configuration: configuration, seed: UInt64.random(in: 0 ... .max), now: .now())
        state = NIOLoopBoundBox.makeBoxSendingValue(State(node: node), eventLoop: eventLoop)
    }

    /// Registers with the host; before it starts.
    ///
    /// - Parameter serving: Whether to answer the others; a node that does not is taken into no table.
    func register(serving: Bool) {
        if serving {
            host.registerMessageHandler(protocolID) { [self] message, reply in serve(message, reply) }
        }
        host.registerMessageHandler(LeaveMessage.protocolID) { [self] message, reply in
            perform { $0.peerLeft(message.peer, now: .now()) }
            reply.ignore()
        }
        host.setEventHandler { [self] event in
            switch event {
            case .identified(let peer, let protocols, let addresses, let isPush):
                let usable = policy.filter(addresses)
                let remote = host.remoteAddress(of: peer)
                let speaksKademlia = protocols.contains(protocolID)
                perform {
                    $0.identified(
                        peer, addresses: usable, remote: remote, speaksKademlia: speaksKademlia, isPush: isPush,
                        now: .now())
                }
            case .disconnected(let peer):
                perform { $0.disconnected(peer, now: .now()) }
            case .addressesChanged(let addresses):
                perform { $0.addresses = addresses }
            }
        }
    }

    /// Does something with the node on its loop, then what the node wants done.
    func perform(_ body: @escaping @Sendable (inout KademliaNode) -> Void) {
        eventLoop.execute { [self] in
            let state = self.state.value
            guard !state.isStopped else { return }
            body(&state.node)
            carryOut(state)
        }
    }

    /// Asks the node something on its loop, then does what the node wants done.
    func ask<Answer: Sendable>(_ body: @escaping @Sendable (inout KademliaNode) throws -> Answer) async throws -> Answer
    {
        try await eventLoop.submit { [self] in
            let state = self.state.value
            let answer = try body(&state.node)
            if !state.isStopped { carryOut(state) }
            return answer
        }.get()
    }

    /// Ends everything: no action is carried out any more, searches end.
    func stop() async {
        try? await eventLoop.submit { [self] in
            let state = self.state.value
            state.isStopped = true
            state.timer?.cancel()
            let streams = state.streams.values
            state.streams = [:]
            for stream in streams { stream.finish() }
        }.get()
    }

    // MARK: Searches

    func providers(for key: String, limit: Int) -> AsyncStream<Peer> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: Peer.self, bufferingPolicy: .bufferingOldest(LookupTable.Limits().providersPerKey))
        let content = ContentKey(key)
        eventLoop.execute { [self] in
            let state = self.state.value
            guard !state.isStopped else { return continuation.finish() }
            state.nextLookup += 1
            let id = LookupID(number: state.nextLookup)
            state.streams[id] = continuation
            continuation.onTermination = { [weak self] reason in
                guard case .cancelled = reason, let self else { return }
                eventLoop.execute { self.cancel(id) }
            }
            state.node.lookup(id, key: content, limit: limit, now: .now())
            carryOut(state)
        }
        return stream
    }

    private func cancel(_ id: LookupID) {
        let state = self.state.value
        guard state.streams.removeValue(forKey: id) != nil else { return }
        state.node.cancelLookup(id)
    }

    // MARK: Serving

    private func serve(_ message: InboundMessage, _ reply: MessageReply) {
        let request: KadMessage
        do {
            request = policy.filter(try KadMessage(decoding: message.payload), from: message.remoteAddress)
        } catch {
            return reply.reset("\(error)")
        }
        eventLoop.execute { [self] in
            let state = self.state.value
            guard !state.isStopped else { return reply.reset("stopping") }
            switch state.node.respond(to: request, from: message.peer, now: .now()) {
            case .answer(let answer): reply.respond(answer.encoded())
            case .silence: reply.ignore()
            case .reset(let reason): reply.reset(reason)
            }
            carryOut(state)
        }
    }

    // MARK: Actions

    private func carryOut(_ state: State) {
        eventLoop.preconditionInEventLoop()
        for action in state.node.takeActions() {
            switch action {
            case .request(let id, let contact, let message):
                Task { await request(id, contact, message) }
            case .provide(let id, let contact, let keys):
                let own = state.node.ownContact
                Task { await announce(id, contact, keys, own: own) }
            case .found(let id, let contact):
                state.streams[id]?.yield(Peer(contact, observed: host.observedAddresses(of: contact.id)))
            case .lookupEnded(let id):
                state.streams.removeValue(forKey: id)?.finish()
            case .log(let level, let message, let metadata):
                logger.log(level: level, "\(message)", metadata: metadata.mapValues { .string($0) })
            case .memberChanged(let peer, let isMember):
                host.setProtected(isMember, peer)
            case .connectivityChanged(let isOnline):
                onConnectivity(isOnline)
            }
        }
        onChange(state.node.table.count, state.node.hasLookedAround)
        setTimer(state)
    }

    private func setTimer(_ state: State) {
        guard let deadline = state.node.timers.nextDeadline else { return }
        if let current = state.timerDeadline, current <= deadline, state.timer != nil { return }
        state.timer?.cancel()
        state.timerDeadline = deadline
        state.timer = eventLoop.scheduleTask(deadline: deadline) { [weak self] in
            guard let self else { return }
            let state = self.state.value
            state.timer = nil
            state.timerDeadline = nil
            guard !state.isStopped else { return }
            state.node.advance(now: .now())
            carryOut(state)
        }
    }

    private func request(_ id: RequestID, _ contact: KadContact, _ message: KadMessage) async {
        do {
            try await connect(contact)
            let bytes = try await host.request(message.encoded(), to: contact.id, protocolID: protocolID)
            let answer = policy.filter(try KadMessage(decoding: bytes), from: nil)
            guard answer.kind == message.kind else { throw WireFormatError("answer of another kind than the request") }
            let remote = host.remoteAddress(of: contact.id)
            perform { $0.requestSucceeded(id, answer, from: remote, now: .now()) }
        } catch {
            logger.debug("request failed", metadata: ["peer": "\(contact.id)", "error": "\(error)"])
            perform { $0.requestFailed(id, KademliaFailure(error), now: .now()) }
        }
    }

    /// The peers a node names when it is asked for those nearest to itself.
    func neighbours(of contact: KadContact) async throws -> [KadContact] {
        try await connect(contact)
        let bytes = try await host.request(
            KadMessage.findNode(contact.id.bytes).encoded(), to: contact.id, protocolID: protocolID)
        return policy.filter(try KadMessage(decoding: bytes), from: nil).closerPeers
    }

    private func announce(_ id: BatchID, _ contact: KadContact, _ keys: [ContentKey], own: KadContact) async {
        var failure: KademliaFailure?
        do {
            guard !own.addresses.isEmpty else { throw HostError.noAddresses(own.id) }
            try await connect(contact)
            try await host.send(
                Announcements(keys: keys, own: own), to: contact.id, protocolID: protocolID)
        } catch {
            logger.debug("announcement failed", metadata: ["peer": "\(contact.id)", "error": "\(error)"])
            failure = own.addresses.isEmpty ? .local : KademliaFailure(error)
        }
        let outcome = failure
        perform { $0.batchFinished(id, failure: outcome, now: .now()) }
    }

    private func connect(_ contact: KadContact) async throws {
        guard !host.isConnected(to: contact.id) else { return }
        _ = try await host.connect(to: contact.id, addresses: contact.addresses)
    }
}

/// The ADD_PROVIDER messages of a batch, encoded one by one as they are sent.
private struct Announcements: Sequence, Sendable {
    let keys: [ContentKey]
    let own: KadContact

    func makeIterator() -> AnyIterator<[UInt8]> {
        var rest = keys[...]
        var provider = own
        provider.isConnected = false
        return AnyIterator {
            rest.popFirst().map { key in
                KadMessage(kind: .addProvider, key: key.multihash, providerPeers: [provider]).encoded()
            }
        }
    }
}

extension Peer {
    /// The peer with the distinct IP addresses among those observed, which come first, and those of the contact.
    init(_ contact: KadContact, observed: [IPAddress] = []) {
        var addresses: [IPAddress] = []
        for address in observed + contact.addresses.compactMap(\.ipAddress) where !addresses.contains(address) {
            addresses.append(address)
        }
        self.init(id: contact.id, addresses: addresses, observedAddresses: observed)
    }
}

extension KademliaFailure {
    /// What a failure of the transport says about the peer.
    init(_ error: any Error) {
        switch error as? HostError {
        case .notStarted, .shutDown, .limitReached, .cannotListen: self = .local
        case .streamReset, .protocolNotSupported, .badAnswer: self = .refused
        // A peer's addresses rest because it could not be reached there a moment ago.
        case .noAddresses, .backingOff, .dialFailed, .peerMismatch, .dialledSelf, .connectionClosed, .timedOut:
            self = .unreachable
        case nil: self = error is WireFormatError ? .refused : .local
        }
    }
}
