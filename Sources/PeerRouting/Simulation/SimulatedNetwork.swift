import HeapModule
import Logging
import NIOCore

/// Many ``KademliaNode``s in one process, on a virtual network and a virtual clock.
///
/// The nodes run the code that runs over sockets; only latency, failures and time are made up. Nothing here depends on
/// the machine's speed or on hash seeds, so a run can be repeated exactly.
package final class SimulatedNetwork {
    enum Event {
        case wake(Int)
        case request(to: Int, from: Int, RequestID, KadMessage)
        case answer(to: Int, RequestID, KadMessage)
        case failure(to: Int, RequestID, KademliaFailure)
        case records(to: Int, from: Int, BatchID, [ContentKey])
        case recordsDone(to: Int, BatchID, KademliaFailure?)
        case identified(Int, peer: Int)
        case disconnected(Int, peer: Int)
        case left(Int, peer: Int)
    }

    private struct Scheduled: Comparable {
        let time: NIODeadline
        let sequence: UInt64
        let event: Event

        static func < (left: Scheduled, right: Scheduled) -> Bool {
            left.time != right.time ? left.time < right.time : left.sequence < right.sequence
        }
        static func == (left: Scheduled, right: Scheduled) -> Bool { left.sequence == right.sequence }
    }

    final class Node {
        var engine: KademliaNode
        let contact: KadContact
        let isLiar: Bool
        /// Peers connected to, and when the connection was last used.
        var connections: [Int: NIODeadline] = [:]
        var wakesAt: NIODeadline?
        /// Which side of a partition the node is on.
        var side = 0

        init(engine: KademliaNode, contact: KadContact, isLiar: Bool) {
            self.engine = engine
            self.contact = contact
            self.isLiar = isLiar
        }
    }

    package let configuration: SimulationConfiguration
    private var events = Heap<Scheduled>()
    private var sequence: UInt64 = 0
    var random: SplitMix64
    package private(set) var now: NIODeadline = .uptimeNanoseconds(1_000_000_000_000)
    private let start: NIODeadline = .uptimeNanoseconds(1_000_000_000_000)

    /// By number; nil for nodes that are gone. Numbers are not used again.
    private(set) var nodes: [Node?] = []
    private var vanishedSilently: Set<Int> = []
    /// Also of nodes that are gone, as their peers still speak of them.
    private var identities: [PeerID] = []
    private var numbers: [KadKey: Int] = [:]
    /// The numbers of the nodes that are there.
    package private(set) var living: [Int] = []
    private var livingIndex: [Int: Int] = [:]
    private var isPartitioned = false

    /// Messages sent in each minute: requests, answers and single records.
    package private(set) var messagesPerMinute: [Int] = []
    /// How many nodes there were at the end of each minute.
    package private(set) var nodesPerMinute: [Int] = []
    package private(set) var eventCount: UInt64 = 0
    /// All searches, finished or not, by number.
    package private(set) var searches: [Search] = []

    /// What became of one search.
    package struct Search: Sendable {
        package let startedAt: NIODeadline
        package var firstFoundAt: NIODeadline?
        package var endedAt: NIODeadline?
        /// The numbers of the nodes named; -1 for ones that do not exist.
        package var found: [Int] = []

        package var timeToFirst: TimeAmount? { firstFoundAt.map { $0 - startedAt } }
        package var duration: TimeAmount? { endedAt.map { $0 - startedAt } }
    }

    package init(configuration: SimulationConfiguration = SimulationConfiguration()) {
        self.configuration = configuration
        random = SplitMix64(seed: configuration.seed)
    }

    /// Virtual time since the beginning.
    package var elapsed: TimeAmount { now - start }

    // MARK: Nodes

    /// Adds a node that joins by `bootstrap`, or is the first.
    ///
    /// - Parameter bootstrap: Numbers of nodes it connects to; those that are gone are tried in vain.
    /// - Returns: Its number.
    @discardableResult
    package func addNode(bootstrap: [Int]) -> Int {
        let number = nodes.count
        var bytes: [UInt8] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]
        for _ in 0..<4 { withUnsafeBytes(of: random.next().littleEndian) { bytes.append(contentsOf: $0) } }
        guard let id = try? PeerID(bytes: bytes) else { preconditionFailure("38 bytes of an Ed25519 peer ID") }
        let address = Multiaddr(.v4(0x0a00_0000 | UInt32(truncatingIfNeeded: number)), tcpPort: 5001)
        let contact = KadContact(id: id, addresses: [address])
        let engine = KademliaNode(
            local: id, addresses: [address], configuration: configuration.node, seed: random.next(), now: now)
        let isLiar = random.fraction() < configuration.liars
        nodes.append(Node(engine: engine, contact: contact, isLiar: isLiar))
        identities.append(id)
        numbers[contact.key] = number
        livingIndex[number] = living.count
        living.append(number)
        for peer in bootstrap { connect(number, to: peer) }
        schedule(wakeOf: number)
        return number
    }

    /// Connects two nodes, as bootstrapping does; nothing happens when the other is gone.
    package func connect(_ number: Int, to peer: Int) {
        guard number != peer, nodes[peer] != nil, canReach(number, peer) else { return }
        _ = establish(number, peer)
    }

    /// Ends a node without warning.
    package func kill(_ number: Int) {
        remove(number, isSilent: random.fraction() < configuration.silentDeaths)
    }

    /// Ends a node that says goodbye to those it is connected to.
    package func leave(_ number: Int) {
        guard let node = nodes[number] else { return }
        _ = node.engine.leave()
        for peer in node.connections.keys.sorted() {
            schedule(.left(peer, peer: number), at: now + latency())
        }
        remove(number, isSilent: false)
    }

    private func remove(_ number: Int, isSilent: Bool) {
        guard let node = nodes[number] else { return }
        nodes[number] = nil
        if isSilent { vanishedSilently.insert(number) }
        if let index = livingIndex.removeValue(forKey: number) {
            living.swapAt(index, living.count - 1)
            living.removeLast()
            if index < living.count { livingIndex[living[index]] = index }
        }
        for peer in node.connections.keys.sorted() {
            let delay = isSilent ? TimeAmount.seconds(40) : latency() + .microseconds(10)
            schedule(.disconnected(peer, peer: number), at: now + delay)
        }
    }

    /// Cuts the network in two: nodes for which `isOnOtherSide` can no longer reach the rest.
    package func partition(_ isOnOtherSide: (Int) -> Bool) {
        isPartitioned = true
        for number in living { nodes[number]?.side = isOnOtherSide(number) ? 1 : 0 }
        for number in living.sorted() {
            for peer in (nodes[number]?.connections.keys.sorted() ?? []) where !canReach(number, peer) {
                nodes[number]?.connections[peer] = nil
                schedule(.disconnected(number, peer: peer), at: now + .seconds(40))
            }
        }
    }

    /// Ends a partition.
    package func heal() {
        isPartitioned = false
    }

    private func canReach(_ a: Int, _ b: Int) -> Bool {
        !isPartitioned || nodes[a]?.side == nodes[b]?.side
    }

    // MARK: What nodes are asked to do

    /// Has a node announce keys.
    package func advertise(_ keys: [String], by number: Int) {
        guard let node = nodes[number] else { return }
        try? node.engine.advertise(keys.map { ContentKey($0) }, now: now)
        perform(number)
    }

    /// Has a node search for providers; the outcome is at the returned index of ``searches``.
    @discardableResult
    package func search(_ key: String, limit: Int = 1, by number: Int) -> Int {
        let index = searches.count
        searches.append(Search(startedAt: now))
        guard let node = nodes[number] else { return index }
        node.engine.lookup(LookupID(number: UInt64(index)), key: ContentKey(key), limit: limit, now: now)
        perform(number)
        return index
    }

    /// The size of a node's routing table.
    package func tableSize(of number: Int) -> Int { nodes[number]?.engine.table.count ?? 0 }
    /// The records a node keeps for others.
    package func recordCount(of number: Int) -> Int { nodes[number]?.engine.store.count ?? 0 }
    /// What a node has planned for later.
    package func timerCount(of number: Int) -> Int { nodes[number]?.engine.timers.count ?? 0 }
    /// Answers that searches for existing keys needed one after the other until the first provider, counted.
    package func firstProviderDepths() -> [UInt64] { sumOverNodes(\.firstProviderDepths) }
    /// The same for searches that found nobody, to their end.
    package func missDepths() -> [UInt64] { sumOverNodes(\.missDepths) }

    private func sumOverNodes(_ path: KeyPath<KademliaNode.Statistics, [UInt64]>) -> [UInt64] {
        var total: [UInt64] = []
        for number in living {
            guard let counts = nodes[number]?.engine.statistics[keyPath: path] else { continue }
            while total.count < counts.count { total.append(0) }
            for (index, count) in counts.enumerated() { total[index] += count }
        }
        return total
    }

    // MARK: Time

    /// Lets `duration` pass.
    package func run(for duration: TimeAmount) {
        let end = now + duration
        while let next = events.min, next.time <= end {
            _ = events.removeMin()
            tick(to: next.time)
            handle(next.event)
            eventCount += 1
        }
        tick(to: end)
    }

    private func tick(to time: NIODeadline) {
        now = time
        let minute = Int((now - start).nanoseconds / 60_000_000_000)
        while messagesPerMinute.count <= minute { messagesPerMinute.append(0) }
        while nodesPerMinute.count < minute { nodesPerMinute.append(living.count) }
    }

    private func countMessages(_ count: Int) {
        if messagesPerMinute.isEmpty { tick(to: now) }
        messagesPerMinute[messagesPerMinute.count - 1] += count
    }

    private func schedule(_ event: Event, at time: NIODeadline) {
        sequence += 1
        events.insert(Scheduled(time: time, sequence: sequence, event: event))
    }

    private func schedule(wakeOf number: Int) {
        guard let node = nodes[number], let deadline = node.engine.timers.nextDeadline else { return }
        if let wakesAt = node.wakesAt, wakesAt <= deadline { return }
        let time = max(deadline, now)
        node.wakesAt = time
        schedule(.wake(number), at: time)
    }

    private func latency() -> TimeAmount {
        let tail = -Self.logarithm(1 - random.fraction()) * Double(configuration.jitter.nanoseconds)
        var total = configuration.latency.nanoseconds + Int64(tail)
        if configuration.loss > 0, random.fraction() < configuration.loss { total += 200_000_000 }
        return .nanoseconds(total)
    }

    /// The natural logarithm, from the number's exponent and a series: the same bits on every platform.
    private static func logarithm(_ value: Double) -> Double {
        guard value > 0 else { return -40 }
        let mantissa = value.significand
        let ratio = (mantissa - 1) / (mantissa + 1)
        var term = ratio
        var sum = 0.0
        for index in stride(from: 1.0, through: 15.0, by: 2.0) {
            sum += term / index
            term *= ratio * ratio
        }
        return 2 * sum + Double(value.exponent) * 0.693_147_180_559_945_3
    }

    // MARK: Events

    private func handle(_ event: Event) {
        switch event {
        case .wake(let number):
            // One that is not the node's next was scheduled before an earlier one; taking it would schedule another.
            guard let node = nodes[number], node.wakesAt == now else { return }
            node.wakesAt = nil
            node.engine.advance(now: now)
            perform(number)
        case .request(let to, let from, let id, let message):
            receive(message, at: to, from: from, id)
        case .answer(let to, let id, let message):
            nodes[to]?.engine.requestSucceeded(id, message, now: now)
            perform(to)
        case .failure(let to, let id, let failure):
            nodes[to]?.engine.requestFailed(id, failure, now: now)
            perform(to)
        case .records(let to, let from, let id, let keys):
            receive(keys, at: to, from: from, id)
        case .recordsDone(let to, let id, let failure):
            nodes[to]?.engine.batchFinished(id, failure: failure, now: now)
            perform(to)
        case .identified(let number, let peer):
            guard let contact = nodes[peer]?.contact, nodes[number]?.connections[peer] != nil else { return }
            nodes[number]?.engine.identified(contact.id, addresses: contact.addresses, speaksKademlia: true, now: now)
            perform(number)
        case .disconnected(let number, let peer):
            guard let node = nodes[number] else { return }
            // A new connection may have been made in between.
            if nodes[peer] != nil, node.connections[peer] != nil { return }
            node.connections[peer] = nil
            node.engine.disconnected(identities[peer], now: now)
            perform(number)
        case .left(let number, let peer):
            nodes[number]?.engine.peerLeft(identities[peer], now: now)
            perform(number)
        }
    }

    private func receive(_ message: KadMessage, at to: Int, from: Int, _ id: RequestID) {
        guard let asker = nodes[from] else { return }
        guard let node = nodes[to], canReach(from, to) else {
            // The connection broke while the request was under way.
            schedule(.failure(to: from, id, .unreachable), at: now + configuration.requestTimeout)
            return
        }
        if configuration.failure > 0, random.fraction() < configuration.failure {
            schedule(.failure(to: from, id, .unreachable), at: now + configuration.requestTimeout)
            return
        }
        let reply = node.engine.respond(to: message, from: asker.contact.id, now: now)
        countMessages(1)
        if case .answer(let answer) = reply {
            let told = node.isLiar ? lie(about: message) : answer
            schedule(.answer(to: from, id, told), at: now + latency())
        } else {
            schedule(.failure(to: from, id, .refused), at: now + latency())
        }
        perform(to)
    }

    private func receive(_ keys: [ContentKey], at to: Int, from: Int, _ id: BatchID) {
        guard let sender = nodes[from] else { return }
        guard let node = nodes[to], canReach(from, to) else {
            schedule(.recordsDone(to: from, id, .unreachable), at: now + configuration.requestTimeout)
            return
        }
        if !node.isLiar {
            for key in keys {
                let message = KadMessage(kind: .addProvider, key: key.multihash, providerPeers: [sender.contact])
                _ = node.engine.respond(to: message, from: sender.contact.id, now: now)
            }
        }
        schedule(.recordsDone(to: from, id, nil), at: now + latency())
        perform(to)
    }

    /// An answer full of peers that do not exist, near the target, and providers that have nothing.
    private func lie(about message: KadMessage) -> KadMessage {
        let target = KadKey(hashing: message.key)
        func invented(near: Bool) -> KadContact {
            var bytes: [UInt8] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]
            for _ in 0..<4 { withUnsafeBytes(of: random.next().littleEndian) { bytes.append(contentsOf: $0) } }
            guard let id = try? PeerID(bytes: bytes) else { preconditionFailure("38 bytes of an Ed25519 peer ID") }
            let address = Multiaddr(.v4(0x0b00_0000), tcpPort: 5001)
            // A real liar would have to try keys for this; it is spared the work.
            let key = KadKey(
                words: (target.words.0 ^ (random.next() >> 20), random.next(), random.next(), random.next()))
            return near ? KadContact(id: id, key: key, addresses: [address]) : KadContact(id: id, addresses: [address])
        }
        return KadMessage(
            kind: message.kind, key: message.kind == .getProviders ? message.key : [],
            closerPeers: (0..<configuration.node.k).map { _ in invented(near: true) },
            providerPeers: message.kind == .getProviders ? [invented(near: false)] : [])
    }

    // MARK: Actions

    private func perform(_ number: Int) {
        guard let node = nodes[number] else { return }
        for action in node.engine.takeActions() {
            switch action {
            case .request(let id, let contact, let message):
                countMessages(1)
                send(from: number, to: contact) { peer, arrival in
                    schedule(.request(to: peer, from: number, id, message), at: arrival)
                } orFail: { time in
                    schedule(.failure(to: number, id, .unreachable), at: time)
                }
            case .provide(let id, let contact, let keys):
                countMessages(keys.count)
                send(from: number, to: contact) { peer, arrival in
                    schedule(.records(to: peer, from: number, id, keys), at: arrival)
                } orFail: { time in
                    schedule(.recordsDone(to: number, id, .unreachable), at: time)
                }
            case .found(let id, let contact):
                let index = Int(id.number)
                if searches[index].firstFoundAt == nil { searches[index].firstFoundAt = now }
                searches[index].found.append(numbers[contact.key] ?? -1)
            case .lookupEnded(let id):
                searches[Int(id.number)].endedAt = now
            case .log, .memberChanged, .connectivityChanged:
                break
            }
        }
        schedule(wakeOf: number)
    }

    private func send(
        from number: Int, to contact: KadContact, _ deliver: (Int, NIODeadline) -> Void,
        orFail fail: (NIODeadline) -> Void
    ) {
        guard let peer = numbers[contact.key], peer != number else { return fail(now + configuration.dialTimeout) }
        if nodes[number]?.connections[peer] != nil {
            nodes[number]?.connections[peer] = now
            // A peer that died silently is found out by the time-out, one that was ended by the broken connection.
            if nodes[peer] == nil || !canReach(number, peer) {
                let isSilent = nodes[peer] != nil || vanishedSilently.contains(peer)
                return fail(now + (isSilent ? configuration.requestTimeout : latency()))
            }
            return deliver(peer, now + latency())
        }
        guard nodes[peer] != nil, canReach(number, peer) else {
            let isSilent = nodes[peer] != nil || vanishedSilently.contains(peer)
            return fail(now + (isSilent ? configuration.dialTimeout : latency() + latency()))
        }
        deliver(peer, establish(number, peer) + latency())
    }

    /// Makes a connection, which takes four round trips with the handshakes, and has both sides identify the other.
    private func establish(_ number: Int, _ peer: Int) -> NIODeadline {
        var ready = now
        for _ in 0..<8 { ready = ready + latency() }
        for (side, other) in [(number, peer), (peer, number)] where nodes[side]?.connections[other] == nil {
            nodes[side]?.connections[other] = now
            schedule(.identified(side, peer: other), at: ready)
            closeIdleConnections(of: side)
        }
        return ready
    }

    private func closeIdleConnections(of number: Int) {
        guard let node = nodes[number], node.connections.count > configuration.connections else { return }
        let byUse = node.connections.sorted { $0.value != $1.value ? $0.value < $1.value : $0.key < $1.key }
        for (peer, _) in byUse.prefix(max(1, configuration.connections / 10)) {
            node.connections[peer] = nil
            nodes[peer]?.connections[number] = nil
            schedule(.disconnected(number, peer: peer), at: now + latency())
            schedule(.disconnected(peer, peer: number), at: now + latency())
        }
    }
}
