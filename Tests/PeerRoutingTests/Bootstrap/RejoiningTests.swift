import PeerTestKit
import TestSupport
import Testing

@testable import PeerRouting

@Suite(.timeLimit(.minutes(10))) struct RejoiningTests {
    /// A node that is connected to its bootstrap peer, and yet has nobody in its table, checks that peer again.
    @Test func byAConnectionThatExists() async throws {
        let first = try makeRouter()
        try await withRouters(first) {
            let second = try makeRouter(joining: first.fullAddresses)
            try await withRouters(second) {
                try await second.joined()
                let key = KadKey(hashing: first.peerID.bytes)
                try await second.driver.ask { node in
                    node.table.remove(key)
                    node.noteConnectivity()
                }
                try await second.joined()
                #expect(second.host.isConnected(to: first.peerID))
                try await eventually { await second.knownPeers().map(\.id) == [first.peerID] }
            }
        }
    }
}
