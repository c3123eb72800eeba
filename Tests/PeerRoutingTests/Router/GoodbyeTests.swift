import PeerTestKit
import TestSupport
import Testing

@testable import Libp2p
@testable import PeerRouting

/// What peers hear of a node that stops.
@Suite(.timeLimit(.minutes(10))) struct GoodbyeTests {
    /// A peer that does not know our goodbye, as Go nodes do not, is told that Kademlia is no longer spoken here.
    @Test func othersAreToldByIdentifyPush() async throws {
        let other = try TestHost()
        let router = try makeRouter()
        try await withHosts(other) {
            try await router.start()
            _ = try await other.host.connect(to: router.peerID, addresses: router.host.listenAddresses)
            let before = try await other.identified(router.peerID)
            #expect(before.protocols.contains(KadMessage.protocolID))
            // The router says goodbye to those its node knows of, which hears of them after the host.
            try await eventually { try await router.driver.ask { !$0.connections.isEmpty } }
            await router.shutdown()
            let after = try await other.identified(router.peerID)
            #expect(!after.protocols.contains(KadMessage.protocolID))
            #expect(after.protocols.contains(IdentifyMessage.pushProtocolID))
            try await other.disconnected(router.peerID)
        }
    }

    /// A node that only asks is in nobody's table, and finds what there is.
    @Test func anAskerLeavesNoTrace() async throws {
        let first = try makeRouter()
        try await withRouters(first) {
            let second = try makeRouter(joining: first.fullAddresses)
            try await withRouters(second) {
                try await second.joined()
                // Each checks the other for itself.
                try await first.joined()
                try await second.advertise(["key"])
                let asker = try makeRouter(joining: first.fullAddresses) { configuration in
                    configuration.isMember = false
                    configuration.listenAddresses = []
                }
                try await withRouters(asker) {
                    try await asker.joined()
                    try await eventually { await asker.found("key") == [second.peerID] }
                    #expect(Set(await asker.walk().map(\.id)) == [first.peerID, second.peerID])
                    #expect(await first.knownPeers().map(\.id) == [second.peerID])
                    #expect(await second.knownPeers().map(\.id) == [first.peerID])
                }
            }
        }
    }
}
