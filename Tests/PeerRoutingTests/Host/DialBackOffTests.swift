import Testing

@testable import PeerRouting

/// What a failed dial says, and what it does not.
@Suite(.timeLimit(.minutes(10))) struct DialBackOffTests {
    /// A node that starts again without its key is somebody else at the same address: that rests for who it was only.
    @Test func anAddressRestsForThePeerThatWasExpectedThere() async throws {
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

    @Test func onlyWhatSpeaksAgainstTheAddressCounts() {
        let peer = NodeIdentity().peerID
        for error in [HostError.dialledSelf, HostError.shutDown, HostError.limitReached("connections")] {
            #expect(!DialBackOff.counts(error))
        }
        for error in [
            HostError.connectionClosed("by the peer"), NoiseError.malformed("frame"),
            NoiseError.peerMismatch(expected: peer, found: peer),
        ] as [any Error] {
            #expect(DialBackOff.counts(error))
        }
    }
}
