import NIOCore

@testable import PeerRouting

/// A ``KademliaNode`` whose clock and whose peers are played by the test.
struct PlayedNode {
    enum Play {
        case answer(KadMessage)
        case fail(KademliaFailure)
        /// Answered by the test, later.
        case hold
    }

    struct Request {
        let id: RequestID
        let peer: KadContact
        let message: KadMessage
    }

    var node: KademliaNode
    var seconds = 0.0
    /// What the peers answer. Without it, that they know nobody.
    var peers: (KadContact, KadMessage) -> Play = { _, message in .answer(KadMessage(kind: message.kind)) }
    /// All requests the node has sent.
    var requests: [Request] = []
    var held: [Request] = []
    /// By caller: the providers it was told.
    var found: [UInt64: [KadContact]] = [:]
    /// The callers that were told the end.
    var ended: Set<UInt64> = []
    /// Records the node has announced, by peer.
    var announced: [PeerID: [ContentKey]] = [:]
    var logs: [String] = []
    private var nextCaller: UInt64 = 0

    init(configuration: KademliaConfiguration = KademliaConfiguration()) {
        node = KademliaNode(
            local: syntheticPeer(-1), addresses: contact(-2).addresses, configuration: configuration, seed: 1,
            now: at(0))
    }

    var now: NIODeadline { at(seconds) }
    var key: KadKey { node.key }

    /// Carries out what the node wants until it wants no more.
    mutating func settle() {
        while true {
            let actions = node.takeActions()
            guard !actions.isEmpty else { return }
            for action in actions {
                switch action {
                case .request(let id, let peer, let message):
                    let request = Request(id: id, peer: peer, message: message)
                    requests.append(request)
                    play(peers(peer, message), request)
                case .provide(let id, let peer, let keys):
                    announced[peer.id, default: []] += keys
                    node.batchFinished(id, failure: nil, now: now)
                case .found(let id, let peer): found[id.number, default: []].append(peer)
                case .lookupEnded(let id): ended.insert(id.number)
                case .log(_, let text, _): logs.append(text)
                case .connectivityChanged, .memberChanged: break
                }
            }
        }
    }

    private mutating func play(_ play: Play, _ request: Request) {
        switch play {
        case .answer(let message): node.requestSucceeded(request.id, message, now: now)
        case .fail(let failure): node.requestFailed(request.id, failure, now: now)
        case .hold: held.append(request)
        }
    }

    /// Plays what was held.
    mutating func release(_ answer: (Request) -> Play) {
        let requests = held
        held = []
        for request in requests { play(answer(request), request) }
        settle()
    }

    /// Peers connect and are admitted.
    mutating func join(_ numbers: some Sequence<Int>) {
        for number in numbers {
            let peer = contact(number)
            node.identified(peer.id, addresses: peer.addresses, speaksKademlia: true, now: now)
            settle()
        }
    }

    /// Time passes; what falls due is done at its own time.
    mutating func wait(_ duration: Double) {
        let end = seconds + duration
        while let deadline = node.nextDeadline, deadline <= at(end) {
            seconds = max(seconds, Double((deadline - at(0)).nanoseconds) / 1e9)
            node.advance(now: max(deadline, now))
            settle()
        }
        seconds = end
    }

    /// Starts a search and returns the caller's number.
    mutating func look(_ key: String, limit: Int = 0) -> UInt64 {
        nextCaller += 1
        node.lookup(LookupID(number: nextCaller), key: ContentKey(key), limit: limit, now: now)
        settle()
        return nextCaller
    }

    /// A peer announces a key.
    @discardableResult
    mutating func receiveRecord(_ key: String, from peer: KadContact, naming: [KadContact]? = nil) -> KademliaReply {
        let message = KadMessage(
            kind: .addProvider, key: ContentKey(key).multihash, providerPeers: naming ?? [peer])
        let reply = node.respond(to: message, from: peer.id, now: now)
        settle()
        return reply
    }

    /// What a peer is answered that asks for a key's providers.
    mutating func providersTold(_ key: String, to asker: Int = 5000) -> [KadContact] {
        let reply = node.respond(
            to: .getProviders(ContentKey(key).multihash), from: syntheticPeer(asker), now: now)
        guard case .answer(let answer) = reply else { return [] }
        return answer.providerPeers
    }

    func searches(for key: String) -> Int {
        requests.count { $0.message.kind == .getProviders && $0.message.key == ContentKey(key).multihash }
    }
}
