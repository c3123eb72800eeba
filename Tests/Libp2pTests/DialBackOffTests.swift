import PeerTestKit
import Testing

@testable import Libp2p

/// Addresses in back-off after a failed dial.
@Suite(.timeLimit(.minutes(10))) struct DialBackOffTests {
    /// A node that restarts without its key is another peer at the same address, which is in back-off for the former one.
    @Test func backOffAppliesToThePeerExpected() async throws {
        let alice = try TestHost()
        let bob = try TestHost()
        let former = NodeIdentity().peerID
        try await withHosts(alice, bob) {
            await #expect(throws: HostError.peerMismatch(expected: former, found: bob.id)) {
                try await alice.host.connect(to: former, addresses: bob.host.listenAddresses)
            }
            await #expect(throws: HostError.backingOff(former)) {
                try await alice.host.connect(to: former, addresses: bob.host.listenAddresses)
            }
            try await alice.connect(to: bob)
        }
    }
}
