import NIOConcurrencyHelpers
import PeerTestKit
import Testing

@testable import Libp2p

/// Connections with an implementation of libp2p that shares no code with ours.
@Suite(.serialized, .timeLimit(.minutes(10))) struct PythonInteropTests {
    private let node: TestHost

    init() throws {
        node = try TestHost()
    }

    private func usedEarlyMuxer(_ peer: PeerID) -> Bool? {
        node.host.state.withLockedValue { $0.connections.newest(to: peer)?.usedEarlyMuxer }
    }

    /// The muxer is agreed on in the handshake when both sides list theirs there, else after it.
    @Test(arguments: [false, true]) func weDialPython(offersEarlyMuxer: Bool) async throws {
        try await withHosts(node) {
            try await withPythonPeer(offersEarlyMuxer ? ["--early-muxer"] : []) { _, id, addresses in
                #expect(try await node.host.connect(to: id, addresses: addresses) == id)
                let seen = try await node.identified(id)
                #expect(seen.protocols.contains("/spegel/kad/1.0.0"))
                #expect(seen.addresses == addresses.compactMap(\.withoutPeerID))
                #expect(usedEarlyMuxer(id) == offersEarlyMuxer)
                #expect(try await node.host.ping(id) > .zero)
                let request = hex(try #require(try Vectors.load().kad["find_node_request(11)"]))
                for _ in 0..<20 {
                    let answer = try await node.host.request(
                        Array(request.dropFirst()), to: id, protocolID: "/spegel/kad/1.0.0")
                    // type = FIND_NODE
                    #expect(answer.starts(with: [8, 4]))
                }
            }
        }
    }

    /// A node of ours that does not list its muxer meets one that does.
    @Test func weDialPythonWithoutAnEarlyMuxerOfOurOwn() async throws {
        let late = try TestHost(earlyMuxer: false)
        try await withHosts(late) {
            try await withPythonPeer(["--early-muxer"]) { _, id, addresses in
                _ = try await late.host.connect(to: id, addresses: addresses)
                #expect(try await late.host.ping(id) > .zero)
                #expect(late.host.state.withLockedValue { $0.connections.newest(to: id)?.usedEarlyMuxer } == false)
            }
        }
    }

    @Test(arguments: [["--security", "noise"], ["--security", "default"], ["--early-muxer"]])
    func pythonDialsUs(_ options: [String]) async throws {
        try await withHosts(node) {
            let address = try #require(node.host.listenAddresses.first).withPeerID(node.id)
            let peer = try await PythonPeer.start(options + ["--pings", "3", "ping", address.description])
            let pong = try await peer.event("pong")
            #expect(pong.peer == node.id.description)
            #expect(pong.protocols?.contains(TestHost.protocolID) == true)
            #expect(try await peer.wait() == 0)
        }
    }

    @Test(arguments: [false, true]) func theMuxerOfAConnectionFromPython(offersEarlyMuxer: Bool) async throws {
        try await withHosts(node) {
            let address = try #require(node.host.listenAddresses.first).withPeerID(node.id)
            try await withPythonPeer(offersEarlyMuxer ? ["--early-muxer"] : []) { peer, id, addresses in
                let connected = try await peer.ask("connect \(address)", "connected")
                #expect(connected.protocols?.contains(TestHost.protocolID) == true)
                #expect(try await node.identified(id).addresses == addresses.compactMap(\.withoutPeerID))
                #expect(usedEarlyMuxer(id) == offersEarlyMuxer)
                #expect(try await node.host.ping(id) > .zero)
            }
        }
    }

    @Test func aWrongIDIsRefusedOnBothSides() async throws {
        try await withHosts(node) {
            let other = NodeIdentity().peerID
            try await withPythonPeer { _, id, addresses in
                let plain = addresses.compactMap(\.withoutPeerID)
                await #expect(throws: HostError.peerMismatch(expected: other, found: id)) {
                    try await node.host.connect(to: other, addresses: plain)
                }
                let learnt = try await node.host.connect(to: nil, addresses: plain, ignoringBackOff: true)
                #expect(learnt == id)
            }
            let address = try #require(node.host.listenAddresses.first).withPeerID(other)
            let peer = try await PythonPeer.start(["--timeout", "3", "ping", address.description])
            #expect(try await peer.wait() == 1)
        }
    }

    @Test func aBatchOnOneStream() async throws {
        try await withHosts(node) {
            try await withPythonPeer(["--go-like"]) { peer, id, addresses in
                _ = try await node.host.connect(to: id, addresses: addresses)
                _ = try await node.identified(id)
                let messages = (0..<200).map { number -> [UInt8] in
                    var writer = ProtobufWriter()
                    writer.varint(1, 2)
                    writer.bytes(2, Multihash.sha256(of: Array("key \(number)".utf8)).bytes)
                    writer.message(9) { provider in
                        provider.bytes(1, node.id.bytes)
                        for address in node.host.advertisedAddresses { provider.bytes(2, address.bytes) }
                        provider.varint(3, 1)
                    }
                    return writer.bytes
                }
                try await node.host.send(messages, to: id, protocolID: "/spegel/kad/1.0.0")
                let records = try #require(try await peer.ask("store", "store").records)
                #expect(records.count == 200)
            }
        }
    }
}
