import NIOCore
import PeerTestKit
import Testing

@testable import Libp2p

@Suite struct ConnectionUpgradeTests {
    /// Carries bytes between the two sides in fragments until neither says more.
    private func run(
        _ initiator: inout ConnectionUpgrade, _ responder: inout ConnectionUpgrade, fragment: Int
    ) throws -> (ConnectionUpgrade.Result?, ConnectionUpgrade.Result?, restOfResponder: ByteBuffer) {
        var toResponder = ByteBuffer()
        var toInitiator = ByteBuffer()
        initiator.start(into: &toResponder)
        responder.start(into: &toInitiator)
        var atInitiator = ByteBuffer()
        var atResponder = ByteBuffer()
        var results: (ConnectionUpgrade.Result?, ConnectionUpgrade.Result?) = (nil, nil)
        while toResponder.readableBytes > 0 || toInitiator.readableBytes > 0 {
            if var part = toResponder.readSlice(length: min(fragment, toResponder.readableBytes)) {
                atResponder.writeBuffer(&part)
            }
            if results.1 == nil { results.1 = try responder.receive(&atResponder, output: &toInitiator) }
            if var part = toInitiator.readSlice(length: min(fragment, toInitiator.readableBytes)) {
                atInitiator.writeBuffer(&part)
            }
            if results.0 == nil {
                results.0 = try initiator.receive(&atInitiator, output: &toResponder)
                if var result = results.0 {
                    // The initiator may go on at once: these bytes often share a segment with the last of the upgrade.
                    var first = ByteBuffer(string: "first frame")
                    try result.transport.encrypt(&first, into: &toResponder)
                }
            }
        }
        return (results.0, results.1, atResponder)
    }

    @Test(arguments: [true, false], [1, 3, 64, 100_000])
    func upgrades(_ early: Bool, _ fragment: Int) throws {
        let (alice, bob) = (NodeIdentity(), NodeIdentity())
        var initiator = try ConnectionUpgrade(
            role: .initiator, identity: alice, expectedPeer: bob.peerID, earlyMuxer: early)
        var responder = try ConnectionUpgrade(role: .responder, identity: bob, expectedPeer: nil)
        let (first, second, rest) = try run(&initiator, &responder, fragment: fragment)
        let dialled = try #require(first)
        var accepted = try #require(second)
        #expect(dialled.peer == bob.peerID)
        #expect(accepted.peer == alice.peerID)
        #expect(dialled.earlyMuxer == early)
        #expect(accepted.earlyMuxer == early)
        var input = rest
        while try accepted.transport.decryptNext(from: &input, into: &accepted.plaintext) {}
        #expect(String(buffer: accepted.plaintext) == "first frame")
    }

    @Test func lateMuxerOnTheResponderSide() throws {
        var initiator = try ConnectionUpgrade(role: .initiator, identity: NodeIdentity(), expectedPeer: nil)
        var responder = try ConnectionUpgrade(
            role: .responder, identity: NodeIdentity(), expectedPeer: nil, earlyMuxer: false)
        let (first, second, _) = try run(&initiator, &responder, fragment: 2)
        #expect(first?.earlyMuxer == false)
        #expect(second?.earlyMuxer == false)
    }

    @Test func wrongPeerIsRefused() throws {
        let expected = NodeIdentity().peerID
        var initiator = try ConnectionUpgrade(role: .initiator, identity: NodeIdentity(), expectedPeer: expected)
        var responder = try ConnectionUpgrade(role: .responder, identity: NodeIdentity(), expectedPeer: nil)
        #expect(throws: NoiseError.self) { try run(&initiator, &responder, fragment: 1000) }
    }

    @Test func mutatedBytesNeverCrash() throws {
        var random = SplitMix64(seed: 14)
        let identity = NodeIdentity()
        var greeting = ByteBuffer()
        MultistreamInitiator([ConnectionUpgrade.noise]).start(into: &greeting)
        var handshake = try NoiseHandshake(role: .initiator, identity: identity, expectedPeer: nil, muxers: nil)
        try handshake.start(into: &greeting)
        let sample = Array(greeting.readableBytesView)
        for _ in 0..<1000 {
            var responder = try ConnectionUpgrade(role: .responder, identity: identity, expectedPeer: nil)
            var input = ByteBuffer(bytes: random.mutate(sample))
            var output = ByteBuffer()
            _ = try? responder.receive(&input, output: &output)
        }
    }
}
