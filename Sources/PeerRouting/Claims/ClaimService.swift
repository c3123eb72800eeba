import ContentClaims
import DequeModule
import Libp2p
import Logging
import NIOConcurrencyHelpers
import NIOCore
import PeerRoutingCore

/// Speaks the claim protocol: answers the claims of others as their arbiter, and brings this node's to the arbiter of each
/// content.
///
/// The arbiter of a content is the node nearest to its key that speaks the protocol, as far as a node knows. Nodes that see
/// different ones make a tree each; that costs a copy and nothing else.
final class ClaimService: Sendable {
    /// Most arbiters asked for one claim, as a dead one is noticed late.
    static let arbiterLimit = 6
    /// Most requests for one claim: to those, to one that the first knows to be nearer, and again to one that says so.
    static let requestLimit = 8
    /// How long to wait before an arbiter is asked again.
    private static let pause = Duration.milliseconds(500)
    /// Most contents whose arbiter is remembered for reports; the one claimed longest ago gives way.
    private static let rememberedLimit = 4096
    /// How long an arbiter that did not answer is passed over.
    private static let restTime = TimeAmount.seconds(5)
    /// How long a report may take; the next one follows soon.
    private static let reportTimeout = Duration.seconds(1)

    private struct State {
        var table: ClaimTable<PeerID>
        var nextExpiry = NIODeadline.now()
        /// Who answered for a content, and in which order they were claimed.
        var arbiters: [String: PeerID] = [:]
        var order: Deque<String> = []
        /// Arbiters that did not answer, and until when they are passed over: as many as nodes fail at a time.
        var resting: [PeerID: NIODeadline] = [:]
    }

    private let host: Host
    private let nearest: @Sendable (ContentKey, _ limit: Int) async -> [KadContact]
    private let policy: AddressPolicy
    private let logger: Logger
    /// How long an arbiter may take to answer a claim. It has it in memory, one round trip away.
    private let timeout: Duration
    private let state: NIOLockedValueBox<State>

    /// - Parameters:
    ///   - limits: those of the contents of which this node is the arbiter, and of the wait for others.
    ///   - policy: the addresses of parents that are believed.
    ///   - nearest: the peers in the routing table that are nearest to a key, nearest first.
    init(
        host: Host, limits: ClaimLimits, policy: AddressPolicy, logger: Logger,
        nearest: @escaping @Sendable (ContentKey, _ limit: Int) async -> [KadContact]
    ) {
        self.host = host
        self.policy = policy
        self.logger = logger
        timeout = limits.timeout
        self.nearest = nearest
        state = NIOLockedValueBox(State(table: ClaimTable(limits: limits.table)))
    }

    /// Registers with the host; before it starts.
    func register() {
        host.registerMessageHandler(ClaimRequest.protocolID) { [self] message, reply in
            let request: ClaimRequest
            do { request = try ClaimRequest(decoding: message.payload) } catch { return reply.reset("\(error)") }
            guard case .claim(let claim) = request.content, !claim.isFinal else {
                return reply.respond(answer(request, from: message.peer).encoded())
            }
            Task {
                // The claimant may not know all that this node knows: one tree is better than two.
                let nearer = await arbiters(of: request.key, limit: 1).nodes.first
                if let nearer, nearer != host.peerID, nearer != message.peer {
                    return reply.respond(ClaimResponse(.ask(nearer, addresses: host.addresses(of: nearer))).encoded())
                }
                reply.respond(answer(request, from: message.peer).encoded())
            }
        }
    }

    // MARK: As arbiter

    private func answer(_ request: ClaimRequest, from peer: PeerID) -> ClaimResponse {
        let now = NIODeadline.now()
        let answer = state.withLockedValue { state -> ClaimTable<PeerID>.Answer in
            if state.nextExpiry <= now {
                state.table.expire(now: now)
                state.nextExpiry = now + .seconds(10)
            }
            switch request.content {
            case .claim(let claim):
                return state.table.claim(
                    request.key, by: peer, offset: claim.offset, failedParent: claim.failedParent,
                    upstreamRate: claim.upstreamRate, isSecondChoice: claim.isFinal,
                    current: claim.current.map { .init($0) }, now: now)
            case .report(let progress):
                return state.table.report(.init(progress), of: request.key, by: peer, now: now) ? .lead : .unknown
            }
        }
        switch answer {
        case .lead: return ClaimResponse(.lead)
        case .unknown: return ClaimResponse(.unknown)
        case .wait: return ClaimResponse(.wait)
        case .follow(let parent):
            let addresses = parent == host.peerID ? host.advertisedAddresses : host.addresses(of: parent)
            return ClaimResponse(.follow(parent, addresses: addresses))
        }
    }

    // MARK: As claimant

    /// Whether a connected peer is known to speak the protocol.
    var canClaim: Bool {
        host.connectedPeers.contains { host.protocols(of: $0)?.contains(ClaimRequest.protocolID) ?? false }
    }

    func claim(_ claim: ContentClaim) async -> ClaimAnswer {
        var message = ClaimRequest.Claim()
        (message.offset, message.failedParent, message.upstreamRate) =
            (claim.offset, claim.failedParent, claim.upstreamRate)
        message.current = claim.current
        let known = await arbiters(of: claim.key, limit: Self.arbiterLimit)
        var waiting = known.nodes[...]
        // Whoever comes after one that does not answer has to, also where it knows that one to be nearer.
        message.isFinal = known.isNearestResting
        for _ in 0..<Self.requestLimit {
            guard let arbiter = waiting.popFirst() else { break }
            let request = ClaimRequest(key: claim.key, content: .claim(message))
            guard let response = await ask(arbiter, request, within: timeout) else {
                message.isFinal = true
                continue
            }
            switch response.content {
            case .unknown:
                message.isFinal = true
                remember(arbiter, for: claim.key)
                // It does not know the parent yet; another one would make a second tree.
                if claim.current != nil { return .unknown }
            case .lead:
                remember(arbiter, for: claim.key)
                return .lead
            case .follow(let parent, let addresses):
                remember(arbiter, for: claim.key)
                guard parent != host.peerID else { return .unknown }
                let contact = KadContact(id: parent, addresses: policy.filter(addresses))
                return .follow(Peer(contact, observed: host.observedAddresses(of: parent)))
            case .wait:
                try? await Task.sleep(for: Self.pause)
                waiting = [arbiter] + waiting
            case .ask(let nearer, _) where isResting(nearer):
                message.isFinal = true
                waiting = [arbiter] + waiting
            case .ask(let nearer, let addresses):
                host.remember(policy.filter(addresses), of: nearer, for: .minutes(1))
                // First the nearer one, then this one, which has to answer itself.
                waiting = [nearer, arbiter] + waiting.filter { $0 != nearer && $0 != arbiter }
            }
        }
        return .unknown
    }

    /// Tells the arbiter that answered the claim. When it has gone, or has forgotten, the next claim finds another.
    ///
    /// - Returns: whether the arbiter still counts this node among the claimants.
    func report(_ progress: ClaimProgress, of key: String) async -> Bool {
        guard let arbiter = state.withLockedValue({ $0.arbiters[key] }) else { return false }
        let request = ClaimRequest(key: key, content: .report(progress))
        let response = await ask(arbiter, request, within: Self.reportTimeout)
        switch progress {
        case .arriving: break
        case .complete, .failed: forget(key)
        }
        return response?.content == .lead
    }

    /// The nodes to ask, nearest first, this one among them, and whether one that is nearer than all of them is passed over
    /// because it did not answer lately.
    private func arbiters(of key: String, limit: Int) async -> (nodes: [PeerID], isNearestResting: Bool) {
        let content = ContentKey(key)
        var known: [(id: PeerID, distance: KadDistance)] = []
        var nearestResting: KadDistance?
        let (now, resting) = (NIODeadline.now(), state.withLockedValue { $0.resting })
        for contact in await nearest(content, limit * 4) {
            // One that is not connected, or not identified yet, is asked as well: the request connects.
            if let protocols = host.protocols(of: contact.id), !protocols.contains(ClaimRequest.protocolID) { continue }
            if let until = resting[contact.id], now < until {
                nearestResting = nearestResting ?? contact.key.distance(to: content.position)
                continue
            }
            known.append((contact.id, contact.key.distance(to: content.position)))
        }
        let own = KadKey(hashing: host.peerID.bytes).distance(to: content.position)
        let place = known.firstIndex { own < $0.distance } ?? known.count
        known.insert((host.peerID, own), at: place)
        return (known.prefix(limit).map(\.id), nearestResting.map { $0 < known[0].distance } ?? false)
    }

    private func isResting(_ peer: PeerID) -> Bool {
        state.withLockedValue { state in state.resting[peer].map { NIODeadline.now() < $0 } ?? false }
    }

    private func ask(_ arbiter: PeerID, _ request: ClaimRequest, within limit: Duration) async -> ClaimResponse? {
        if arbiter == host.peerID { return answer(request, from: arbiter) }
        let host = self.host
        let answer = await Self.within(limit, else: .failure(HostError.timedOut("\(limit) for a claim"))) {
            await Result {
                try ClaimResponse(
                    decoding: try await host.request(
                        request.encoded(), to: arbiter, protocolID: ClaimRequest.protocolID))
            }
        }
        switch answer {
        case .success(let response): return response
        case .failure(let error):
            logger.debug(
                "a claim was not answered",
                metadata: ["key": "\(request.key)", "arbiter": "\(arbiter)", "error": "\(error)"])
            let until = NIODeadline.now() + Self.restTime
            state.withLockedValue { state in
                if state.resting.count >= Self.rememberedLimit { state.resting = [:] }
                state.resting[arbiter] = until
            }
            return nil
        }
    }

    private func remember(_ arbiter: PeerID, for key: String) {
        state.withLockedValue { state in
            if state.arbiters.updateValue(arbiter, forKey: key) == nil { state.order.append(key) }
            while state.order.count > Self.rememberedLimit, let oldest = state.order.popFirst() {
                state.arbiters[oldest] = nil
            }
        }
    }

    private func forget(_ key: String) {
        state.withLockedValue { state in
            guard state.arbiters.removeValue(forKey: key) != nil else { return }
            state.order.removeAll { $0 == key }
        }
    }

    /// Does something for as long as it may take. What comes later is dropped, and what runs on ends by itself.
    private static func within<Value: Sendable>(
        _ limit: Duration, else late: Value, _ body: @escaping @Sendable () async -> Value
    ) async -> Value {
        await withCheckedContinuation { continuation in
            let pending = NIOLockedValueBox<CheckedContinuation<Value, Never>?>(continuation)
            let take = { @Sendable in
                pending.withLockedValue { pending in
                    defer { pending = nil }
                    return pending
                }
            }
            let timer = Task {
                // Cancelled when the value is there.
                guard (try? await Task.sleep(for: limit)) != nil else { return }
                take()?.resume(returning: late)
            }
            Task {
                let value = await body()
                take()?.resume(returning: value)
                timer.cancel()
            }
        }
    }
}

extension Result where Failure == any Error {
    fileprivate init(_ body: () async throws -> Success) async {
        do { self = .success(try await body()) } catch { self = .failure(error) }
    }
}
