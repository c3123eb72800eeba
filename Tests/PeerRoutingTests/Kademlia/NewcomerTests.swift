import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

/// A peer that joins is given the records it is a keeper of.
@Suite struct NewcomerTests {
    /// A node whose requests are all answered at once, with nothing in the answers.
    private struct Network {
        var node: KademliaNode
        /// Batches under way, by the peer that gets them.
        var batches: [(id: BatchID, peer: PeerID, keys: Set<KadKey>)] = []

        init() {
            node = KademliaNode(local: syntheticPeer(0), configuration: KademliaConfiguration(), seed: 1, now: at(0))
            node.addresses = contact(0).addresses
        }

        mutating func join(_ number: Int, now: NIODeadline) {
            let peer = contact(number)
            node.identified(peer.id, addresses: peer.addresses, speaksKademlia: true, now: now)
            settle(now: now)
        }

        mutating func settle(now: NIODeadline) {
            while true {
                let actions = node.takeActions()
                if actions.isEmpty { return }
                for action in actions {
                    switch action {
                    case .request(let id, _, let message):
                        node.requestSucceeded(id, KadMessage(kind: message.kind, key: message.key), now: now)
                    case .provide(let id, let contact, let keys):
                        batches.append((id, contact.id, Set(keys.map(\.position))))
                    default:
                        break
                    }
                }
            }
        }

        mutating func finishBatches(now: NIODeadline) {
            while !batches.isEmpty {
                node.batchFinished(batches.removeFirst().id, failure: nil, now: now)
                settle(now: now)
            }
        }
    }

    private let keys = (0..<10).map { ContentKey("key \($0)") }

    @Test func getsWhatWasAnnouncedBefore() throws {
        var network = Network()
        network.join(1, now: at(0))
        try network.node.advertise(keys, now: at(1))
        network.node.advance(now: at(2))
        network.settle(now: at(2))
        network.finishBatches(now: at(2))
        network.join(2, now: at(3))
        #expect(network.batches.map(\.peer) == [syntheticPeer(2)])
        #expect(network.batches.first?.keys == Set(keys.map(\.position)))
    }

    @Test func getsWhatIsBeingAnnouncedToOthers() throws {
        var network = Network()
        network.join(1, now: at(0))
        try network.node.advertise(keys, now: at(1))
        network.node.advance(now: at(2))
        network.settle(now: at(2))
        #expect(network.batches.map(\.peer) == [syntheticPeer(1)])
        network.join(2, now: at(2))
        let newcomers = network.batches.filter { $0.peer == syntheticPeer(2) }
        #expect(newcomers.map(\.keys) == [Set(keys.map(\.position))])
        // Once is enough.
        network.finishBatches(now: at(3))
        #expect(network.node.statistics.recordsSent == 20)
    }
}
