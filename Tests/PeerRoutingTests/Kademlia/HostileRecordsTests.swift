import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

/// Requests of peers that mean ill, as far as they are well-formed: nothing is believed that is not the sender's to
/// say, and nothing grows past its bound.
@Suite struct HostileRecordsTests {
    var played = PlayedNode()

    private func isReset(_ reply: KademliaReply) -> Bool {
        if case .reset = reply { true } else { false }
    }

    private func isSilence(_ reply: KademliaReply) -> Bool {
        if case .silence = reply { true } else { false }
    }

    @Test mutating func recordsForOthersAreRefused() {
        played.join(1...3)
        #expect(isReset(played.receiveRecord("a", from: contact(1), naming: [contact(2)])))
        #expect(isReset(played.receiveRecord("a", from: contact(1), naming: [])))
        #expect(played.node.store.count == 0)
        // Of a list only the sender is taken.
        #expect(isSilence(played.receiveRecord("a", from: contact(1), naming: [contact(2), contact(1), contact(3)])))
        #expect(played.providersTold("a").map(\.id) == [syntheticPeer(1)])
    }

    @Test mutating func recordsWithoutAnAddressAreRefused() {
        var bare = contact(1)
        bare.addresses = []
        #expect(isReset(played.receiveRecord("a", from: bare)))
        #expect(played.node.store.count == 0)
        // An address that may not be believed is as good as none.
        for text in ["/ip4/127.0.0.1/tcp/1", "/ip4/169.254.169.254/tcp/80", "/ip4/10.0.0.1/tcp/0", "/dns4/a/tcp/1"] {
            bare.addresses = [text].compactMap { Multiaddr($0) }
            let message = KadMessage(kind: .addProvider, key: ContentKey("a").multihash, providerPeers: [bare])
            let filtered = AddressPolicy().filter(message, from: nil)
            #expect(isReset(played.node.respond(to: filtered, from: bare.id, now: played.now)), "\(text)")
        }
    }

    @Test mutating func addressesThatCannotBeReadAreLeftOut() throws {
        var writer = ProtobufWriter()
        writer.varint(1, KadMessage.Kind.addProvider.rawValue)
        writer.bytes(2, ContentKey("a").multihash)
        writer.message(9) { peer in
            peer.bytes(1, syntheticPeer(1).bytes)
            peer.bytes(2, [0xff, 0xff, 0xff])
            peer.bytes(2, contact(1).addresses[0].bytes)
            peer.bytes(2, [])
        }
        writer.message(9) { peer in peer.bytes(1, [1, 2, 3]) }
        let message = AddressPolicy().filter(try KadMessage(decoding: writer.bytes), from: nil)
        #expect(isSilence(played.node.respond(to: message, from: syntheticPeer(1), now: played.now)))
        #expect(played.providersTold("a") == [contact(1)])
    }

    @Test mutating func requestsThatCannotBeMeantAreRefused() {
        let requests = [
            KadMessage(kind: .findNode), KadMessage(kind: .getProviders),
            KadMessage(kind: .getProviders, key: [UInt8](repeating: 1, count: 81)),
            KadMessage(kind: .addProvider, providerPeers: [contact(1)]),
            KadMessage(kind: .addProvider, key: [UInt8](repeating: 1, count: 81), providerPeers: [contact(1)]),
            KadMessage(kind: .putValue, key: [1]), KadMessage(kind: .getValue, key: [1]),
        ]
        for request in requests {
            #expect(isReset(played.node.respond(to: request, from: syntheticPeer(1), now: played.now)), "\(request)")
        }
        #expect(played.node.store.count == 0)
    }

    /// A key from ten thousand invented identities: it is kept within its bound, the real nodes' records are among
    /// those kept, others' keys are untouched, and an answer stays below a MiB.
    @Test mutating func aKeyFromTenThousandIdentities() {
        played.join(1...3)
        played.receiveRecord("other", from: contact(1))
        for number in 10_000..<20_000 { #expect(isSilence(played.receiveRecord("a", from: contact(number)))) }
        #expect(played.node.store.count == ProviderStore.Limits().perKey + 1)
        #expect(played.logs.contains { $0.contains("store is full") })
        #expect(played.logs.count { $0.contains("store is full") } < 20, "not a line for each")
        for number in 1...3 { played.receiveRecord("a", from: contact(number)) }
        let told = played.providersTold("a")
        #expect(told.count == ProviderStore.Limits().perKey)
        #expect(Set(told.map(\.id)).isSuperset(of: (1...3).map { syntheticPeer($0) }))
        #expect(played.providersTold("other").map(\.id) == [syntheticPeer(1)])
        let answer = KadMessage(kind: .getProviders, providerPeers: told).encoded()
        #expect(answer.count <= KadMessage.Limits.writtenAnswerLength)
        // The invented ones never got into the table, so none is asked or handed on.
        #expect(played.node.table.count == 3)
        // And they go again by themselves.
        played.wait(20 * 60)
        #expect(played.providersTold("a").isEmpty)
        played.wait(11 * 60)
        #expect(played.node.store.count == 0)
    }

    /// Who announces a key first is not asked first by everybody, neither an attacker nor the node that then has to serve all.
    @Test mutating func providersAreFoundInNoOrder() {
        played.join(1...8)
        var first: [KadContact: Int] = [:]
        for key in (0..<80).map({ "key \($0)" }) {
            for number in 1...8 { played.receiveRecord(key, from: contact(number)) }
            let found = played.found[played.look(key)] ?? []
            #expect(Set(found).count == 8)
            if let peer = found.first { first[peer, default: 0] += 1 }
        }
        #expect(first.count == 8)
        #expect(first.values.allSatisfy { $0 < 30 }, "\(first.values)")
    }

    /// One identity with records without end takes its share, no more.
    @Test mutating func recordsWithoutEndFromOnePeer() {
        var configuration = KademliaConfiguration()
        configuration.store.perProvider = 100
        configuration.store.total = 1000
        played = PlayedNode(configuration: configuration)
        for number in 0..<500 { played.receiveRecord("key \(number)", from: contact(1)) }
        #expect(played.node.store.count == 100)
        played.receiveRecord("key 499", from: contact(2))
        #expect(played.providersTold("key 499") == [contact(2)])
    }

    /// Answers full of inventions, and of the node itself, do not fill the table.
    @Test mutating func onlyWhoAnswersGetsIntoTheTable() {
        played.join(1...3)
        let invented = (100..<140).map { contact($0) } + [KadContact(id: played.node.local, addresses: [])]
        played.peers = { peer, message in
            guard (1...3).map({ syntheticPeer($0) }).contains(peer.id) else { return .fail(.unreachable) }
            return .answer(KadMessage(kind: message.kind, key: message.key, closerPeers: invented))
        }
        let caller = played.look("a")
        played.wait(31)
        #expect(played.ended.contains(caller))
        #expect(played.node.table.count == 3)
        #expect(!played.requests.contains { $0.peer.id == played.node.local })
        #expect(played.requests.count < 300)
    }

    /// Identities that knock and are gone: what is remembered of them has bounds.
    @Test mutating func identitiesWithoutEnd() {
        played.join(1...3)
        played.peers = { _, _ in .hold }
        for number in 1000..<11_000 {
            let peer = contact(number)
            played.node.identified(peer.id, addresses: peer.addresses, speaksKademlia: true, now: played.now)
            played.node.reportUnreachable(peer.id, now: played.now)
            played.node.peerLeft(peer.id, now: played.now)
            played.node.disconnected(peer.id, now: played.now)
            played.settle()
        }
        let node = played.node
        #expect(node.checking.count + node.probing.count <= 2 * node.configuration.checks)
        #expect(node.departed.count <= 4096 && node.health.count <= 4096 && node.probedAt.count <= 4097)
        #expect(node.connections.count == 3 && node.table.count == 3)
    }

    @Test func anAnnouncementMayBeHeldToTheAddressItCameFrom() throws {
        let given = try ["/ip4/10.1.2.3/tcp/1", "/ip4/10.9.9.9/tcp/1"].map { try Multiaddr(parsing: $0) }
        let message = KadMessage(
            kind: .addProvider, key: [1], providerPeers: [KadContact(id: syntheticPeer(1), addresses: given)])
        let remote = try #require(IPAddress("::ffff:10.1.2.3"))
        let strict = AddressPolicy(requiresObservedAddress: true)
        #expect(strict.filter(message, from: remote).providerPeers[0].addresses == [given[0]])
        #expect(AddressPolicy().filter(message, from: remote).providerPeers[0].addresses == given)
    }
}
