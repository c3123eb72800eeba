/// A node met on a walk through the network.
public struct WalkedPeer: Sendable {
    /// Who it is.
    public var id: PeerID
    /// Where others say it is, or, if it answered, where it says so itself.
    public var addresses: [Multiaddr]
    /// Whether it answered.
    public var hasAnswered: Bool
    /// The name and version it gave itself.
    public var agentVersion: String?

    /// Describes a node.
    public init(id: PeerID, addresses: [Multiaddr], hasAnswered: Bool, agentVersion: String? = nil) {
        self.id = id
        self.addresses = addresses
        self.hasAnswered = hasAnswered
        self.agentVersion = agentVersion
    }
}

extension KademliaRouter {
    /// Walks through the network: asks every node for the nodes nearest to itself, and those in turn.
    ///
    /// Every node knows its neighbours, so this finds all nodes of a healthy cluster, whatever its size.
    ///
    /// - Parameters:
    ///   - limit: The most nodes that are asked.
    ///   - width: How many are asked at once.
    /// - Returns: The nodes in the order of their IDs; never this one.
    public func walk(limit: Int = 10_000, width: Int = 10) async -> [WalkedPeer] {
        let known = (try? await driver.ask { $0.table.nearest(to: $0.key, limit: $0.table.count) }) ?? []
        var seen = Set(known.map(\.id)).union([peerID])
        var waiting = known[...]
        var met: [WalkedPeer] = []
        await withTaskGroup(of: (peer: WalkedPeer, neighbours: [KadContact]).self) { group in
            var asked = 0
            var running = 0
            while true {
                while running < width, asked < limit, !Task.isCancelled, let contact = waiting.popFirst() {
                    asked += 1
                    running += 1
                    group.addTask { await self.visit(contact) }
                }
                guard let (peer, neighbours) = await group.next() else { break }
                running -= 1
                met.append(peer)
                waiting += neighbours.filter { seen.insert($0.id).inserted }
            }
        }
        return met.sorted { $0.id.description < $1.id.description }
    }

    private func visit(_ contact: KadContact) async -> (peer: WalkedPeer, neighbours: [KadContact]) {
        var peer = WalkedPeer(id: contact.id, addresses: contact.addresses, hasAnswered: false)
        guard let neighbours = try? await driver.neighbours(of: contact) else { return (peer, []) }
        peer.hasAnswered = true
        try? await host.waitForIdentify(of: contact.id, atMost: .seconds(1))
        peer.agentVersion = host.agentVersion(of: contact.id)
        let addresses = host.addresses(of: contact.id)
        if !addresses.isEmpty { peer.addresses = addresses }
        return (peer, neighbours)
    }
}
