import ContentStore
import NIOCore
import OCIDistribution
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

/// Peers that answer and are of no use, beside honest ones: what the client sees, and what it costs whom.
@Suite(.timeLimit(.minutes(10))) struct HostilePeerTests {
    private let manifest = SharedBytes.manifest(21)
    private let small = SharedBytes(count: 600_000, seed: 21)
    private let large = SharedBytes(count: 16_000_000, seed: 22)

    private func serve(_ contents: [SharedBytes], fault: Fault, port: Int = 0) async throws -> FaultyPeer {
        let peer = try await FaultyPeer.start(port: port, fault: fault)
        for content in contents {
            let type = content.count < 1000 ? MediaType.imageManifest.rawValue : "application/octet-stream"
            peer.serve(content, type: type)
        }
        return peer
    }

    // MARK: Trickling

    /// The trickling peer answers at once, so that it wins the race; the other one gives the rest.
    @Test(arguments: ["manifest", "small", "large"])
    func aTricklingPeerIsReplacedWithinABody(_ kind: String) async throws {
        let content = kind == "manifest" ? manifest : kind == "small" ? small : large
        let slow = try await serve([content], fault: .trickle)
        let honest = try await serve([content], fault: .none, port: slow.port)
        let network = InMemoryPeerNetwork()
        try await advertise(["\(content.digest)"], of: peer(1, [slow.address]), in: network)
        try await advertise(["\(content.digest)"], of: peer(2, [honest.address]), in: network)
        let node = try await Node.start(network: network, peerPort: slow.port) {
            $0.peers.slowBodyWindow = .milliseconds(100)
        }
        // The honest one is not asked before the other one's body is under way.
        honest.hold()
        let path = kind == "manifest" ? manifestPath(content.digest) : blobPath(content.digest)
        let answer = Task { try await VerifyingClient.get(port: node.port, path, expected: content.buffer) }
        try await eventually { node.metric("spegel_mirror_transfers_inflight") == 1 }
        honest.release()
        #expect(try await answer.value == .right(status: 200))
        #expect(slow.requests.count == 1)
        #expect(node.metric(#"spegel_mirror_peer_failures_total{reason="slow"}"#) == 1)
        #expect(node.metric("spegel_mirror_resumes_total") == 1)
        await node.stop()
        await slow.kill()
        await honest.kill()
    }

    /// When no other peer has the content, the transfer ends, and the client that comes back is sent to the upstream at once.
    @Test(arguments: ["manifest", "small", "large"])
    func aTricklingPeerAloneLeavesTheContentToTheUpstream(_ kind: String) async throws {
        let content = kind == "manifest" ? manifest : kind == "small" ? small : large
        let slow = try await serve([content], fault: .trickle)
        let network = InMemoryPeerNetwork()
        try await advertise(["\(content.digest)"], of: peer(1, [slow.address]), in: network)
        let node = try await Node.start(network: network, peerPort: slow.port) {
            $0.peers.slowBodyWindow = .milliseconds(100)
            $0.peers.progressTimeout = .milliseconds(500)
        }
        let path = kind == "manifest" ? manifestPath(content.digest) : blobPath(content.digest)
        let client = try await VerifyingClient.connect(port: node.port)
        let outcome = try await client.get(path, expected: content.buffer)
        if kind == "large" {
            if case .broken = outcome {} else { Issue.record("\(outcome)") }
        } else {
            #expect(outcome == .refused(status: 404))
        }
        await client.close()
        let requests = slow.requests.count
        let rest = content.slice(1..<content.count)
        let range = kind == "manifest" ? "" : "Range: bytes=1-\r\n"
        #expect(
            try await VerifyingClient.get(port: node.port, path, fields: range, expected: rest)
                == .refused(status: 404))
        #expect(slow.requests.count == requests)
        await node.stop()
        await slow.kill()
    }

    /// The deadline of the response is the failure of the peer that sends the body.
    @Test func aDeadlineCountsAgainstThePeer() async throws {
        let slow = try await serve([small], fault: .trickle)
        let network = InMemoryPeerNetwork()
        try await advertise(["\(small.digest)"], of: peer(1, [slow.address]), in: network)
        let node = try await Node.start(network: network, peerPort: slow.port) {
            $0.blobTimeout = .seconds(5)
            $0.stallAllowance = .zero
        }
        let path = blobPath(small.digest)
        #expect(
            try await VerifyingClient.get(port: node.port, path, expected: small.buffer) == .refused(status: 404))
        #expect(node.metric(#"spegel_mirror_peer_failures_total{reason="stalled"}"#) == 1)
        #expect(
            try await VerifyingClient.get(port: node.port, path, expected: small.buffer) == .refused(status: 404))
        #expect(slow.requests.count == 1)
        await node.stop()
        await slow.kill()
    }

    // MARK: False claims

    /// A liar names an honest peer's identity with its own address.
    @Test(arguments: [Fault.wrongByte, .status404, .refused, .closedInBody])
    func aClaimedAddressCostsTheIdentityNothing(_ fault: Fault) async throws {
        let contents = (0..<6).map { SharedBytes(count: 5000, seed: UInt64(300 + $0)) }
        let liar = try await serve(contents, fault: fault)
        let honest = try await serve(contents, fault: .none, port: liar.port)
        let network = InMemoryPeerNetwork()
        for content in contents {
            var claimed = try peer(1, [liar.address, honest.address])
            claimed.observedAddresses = [honest.address]
            try await advertise(["\(content.digest)"], of: claimed, in: network)
        }
        let node = try await Node.start(network: network, peerPort: liar.port)
        for content in contents {
            #expect(
                try await VerifyingClient.get(port: node.port, blobPath(content.digest), expected: content.buffer)
                    == .right(status: 200))
        }
        #expect(liar.requests.isEmpty)
        await node.stop()
        await liar.kill()
        await honest.kill()
    }

    /// As above, but no address is known first-hand: the liar's failures leave the other address as it is.
    @Test func withoutObservedAddressesEachClaimStandsForItself() async throws {
        let contents = (0..<6).map { SharedBytes(count: 5000, seed: UInt64(400 + $0)) }
        let liar = try await serve(contents, fault: .wrongByte)
        let honest = try await serve(contents, fault: .none, port: liar.port)
        let network = InMemoryPeerNetwork()
        for content in contents {
            try await advertise(
                ["\(content.digest)"], of: peer(1, [liar.address, honest.address], isObserved: false), in: network)
        }
        let node = try await Node.start(network: network, peerPort: liar.port)
        for content in contents {
            #expect(
                try await VerifyingClient.get(port: node.port, blobPath(content.digest), expected: content.buffer)
                    == .right(status: 200))
        }
        #expect(liar.requests.count <= PeerStats.exclusionThreshold)
        await node.stop()
        await liar.kill()
        await honest.kill()
    }

    /// An address that was only claimed is not reported to the router as the identity's failure.
    @Test func onlyObservedAddressesAreReportedUnreachable() async throws {
        let gone = try await serve([manifest], fault: .refused)
        for (isObserved, number) in [(false, UInt8(1)), (true, 2)] {
            let network = InMemoryPeerNetwork()
            let other = try peer(3)
            try await advertise(["k"], of: peer(number, [gone.address]), in: network)
            try await advertise(["k"], of: other, in: network)
            try await advertise(
                ["\(manifest.digest)"], of: peer(number, [gone.address], isObserved: isObserved), in: network)
            let node = try await Node.start(network: network, peerPort: gone.port)
            #expect(
                try await VerifyingClient.get(
                    port: node.port, manifestPath(manifest.digest), expected: manifest.buffer)
                    == .refused(status: 404))
            // A peer that was reported comes last.
            var order: [PeerID] = []
            for await peer in node.router.providers(for: "k", limit: 0) { order.append(peer.id) }
            #expect(order.first == (isObserved ? other.id : try peer(number).id))
            await node.stop()
        }
    }

    // MARK: Absent content

    /// Identities on one address announce everything first and have nothing.
    @Test func identitiesOfOneAddressDoNotHideContent() async throws {
        let contents = (0..<20).map { SharedBytes(count: 5000, seed: UInt64(500 + $0)) }
        let liar = try await serve([], fault: .none)
        let honest = try await serve(contents, fault: .none, port: liar.port)
        let network = InMemoryPeerNetwork()
        for content in contents {
            for number in 1...5 as ClosedRange<UInt8> {
                try await advertise(
                    ["\(content.digest)"], of: peer(number, [liar.address], isObserved: false), in: network)
            }
            try await advertise(["\(content.digest)"], of: peer(9, [honest.address], isObserved: false), in: network)
        }
        let node = try await Node.start(network: network, peerPort: liar.port)
        for content in contents {
            #expect(
                try await VerifyingClient.get(port: node.port, blobPath(content.digest), expected: content.buffer)
                    == .right(status: 200))
        }
        // Once the honest one has proved itself, the others are not asked any more.
        #expect(liar.requests.count < contents.count, "\(liar.requests.count)")
        await node.stop()
        await liar.kill()
        await honest.kill()
    }

    // MARK: Credentials

    @Test func credentialsGoOnlyToObservedPeersThatAskForThem() async throws {
        let contents = (0..<2).map { SharedBytes(count: 5000, seed: UInt64(600 + $0)) }
        for isObserved in [true, false] {
            let server = try await serve(contents, fault: .asksForCredentials)
            let network = InMemoryPeerNetwork()
            for content in contents {
                try await advertise(
                    ["\(content.digest)"], of: peer(1, [server.address], isObserved: isObserved), in: network)
            }
            let node = try await Node.start(network: network, peerPort: server.port) {
                $0.peers.credentials = BasicCredentials(username: "u", password: "p")
            }
            for content in contents {
                let outcome = try await VerifyingClient.get(
                    port: node.port, blobPath(content.digest), expected: content.buffer)
                #expect(outcome == (isObserved ? .right(status: 200) : .refused(status: 404)))
            }
            let withCredentials = server.requests.map { $0.contains("\r\nAuthorization: Basic dTpw\r\n") }
            // The challenge is remembered.
            #expect(withCredentials == (isObserved ? [false, true, true] : withCredentials.map { _ in false }))
            await node.stop()
            await server.kill()
        }
    }

    // MARK: Sizes

    /// A peer claims more bytes than the manifest names, and sends them.
    @Test func aKnownSizeBoundsWhatAPeerMaySend() async throws {
        let layer = SharedBytes(count: 20_000, seed: 700)
        let manifest = SharedBytes.manifest(layer: layer.digest, size: layer.count)
        let liar = try await FaultyPeer.start()
        liar.serve(manifest, type: MediaType.imageManifest.rawValue)
        liar.serve(SharedBytes(count: 8_000_000, seed: 701), as: "\(layer.digest)")
        let network = InMemoryPeerNetwork()
        try await advertise(["\(manifest.digest)", "\(layer.digest)"], of: peer(1, [liar.address]), in: network)
        let node = try await Node.start(network: network, peerPort: liar.port)
        #expect(
            try await VerifyingClient.get(
                port: node.port, manifestPath(manifest.digest), expected: manifest.buffer) == .right(status: 200))
        #expect(
            try await VerifyingClient.get(port: node.port, blobPath(layer.digest), expected: layer.buffer)
                == .refused(status: 404))
        #expect(
            try await VerifyingClient.get(
                port: node.port, blobPath(layer.digest), fields: "Range: bytes=1000-\r\n", expected: layer.buffer)
                == .refused(status: 404))
        #expect(node.metric(#"spegel_mirror_peer_failures_total{reason="length"}"#) == 2)
        #expect(node.metric(#"spegel_mirror_received_bytes_total{registry="docker.io"}"#) == Double(manifest.count))
        await node.stop()
        await liar.kill()
    }

    // MARK: Tags

    private func tagPath(_ tag: String) -> String { "/v2/library/demo/manifests/\(tag)?ns=docker.io" }

    /// The attacker is the first provider, at one address with several identities.
    @Test func theMajorityOfPeersSaysWhatATagStandsFor() async throws {
        let (right, wrong) = (SharedBytes.manifest(1), SharedBytes.manifest(666))
        let key = "docker.io/library/demo:1.0"
        let attacker = try await FaultyPeer.start()
        attacker.serve(wrong, tag: "1.0", type: MediaType.imageManifest.rawValue)
        let network = InMemoryPeerNetwork()
        for number in 1...3 as ClosedRange<UInt8> {
            try await advertise([key], of: peer(number, [attacker.address]), in: network)
        }
        var honest: [FaultyPeer] = []
        for number in 4...5 as ClosedRange<UInt8> {
            let server = try await FaultyPeer.start(port: attacker.port)
            server.serve(right, tag: "1.0", type: MediaType.imageManifest.rawValue)
            try await advertise([key], of: peer(number, [server.address]), in: network)
            honest.append(server)
        }
        let node = try await Node.start(network: network, peerPort: attacker.port)
        for _ in 0..<5 {
            // The answers are there together, so that none is left out for being late.
            for server in honest + [attacker] { server.hold() }
            let answer = Task {
                try await VerifyingClient.get(port: node.port, tagPath("1.0"), expected: right.buffer)
            }
            try await eventually { ([attacker] + honest).allSatisfy { $0.heldCount == 1 } }
            for server in honest + [attacker] { server.release() }
            #expect(try await answer.value == .right(status: 200))
        }
        await node.stop()
        await attacker.kill()
        for server in honest { await server.kill() }
    }

    @Test func tagsCanBeLeftToTheRegistry() async throws {
        let peerServer = try await FaultyPeer.start()
        peerServer.serve(manifest, tag: "1.0", type: MediaType.imageManifest.rawValue)
        peerServer.serve(manifest, type: MediaType.imageManifest.rawValue)
        let network = InMemoryPeerNetwork()
        try await advertise(
            ["docker.io/library/demo:1.0", "\(manifest.digest)"], of: peer(1, [peerServer.address]), in: network)
        let node = try await Node.start(network: network, peerPort: peerServer.port) { $0.resolvesTags = false }
        #expect(
            try await VerifyingClient.get(port: node.port, tagPath("1.0"), expected: manifest.buffer)
                == .refused(status: 404))
        #expect(peerServer.requests.isEmpty)
        #expect(
            try await VerifyingClient.get(
                port: node.port, manifestPath(manifest.digest), expected: manifest.buffer) == .right(status: 200))
        await node.stop()
        await peerServer.kill()
    }

    // MARK: Conditions

    /// The mirror answers a conditional request as the store of the node with the content does.
    @Test(arguments: ["GET", "HEAD"])
    func conditionalRequestsAreAnsweredAsByTheStore(method: String) async throws {
        let other = Digest.hash(of: "other".utf8)
        let store = InMemoryContentStore()
        try await store.write(manifest.buffer, as: manifest.digest)
        try await store.write(small.buffer, as: small.digest)
        let server = try await serve([manifest, small], fault: .none)
        let network = InMemoryPeerNetwork()
        try await advertise(
            ["\(manifest.digest)", "\(small.digest)"], of: peer(1, [server.address]), in: network)
        let local = try await Node.start(network: InMemoryPeerNetwork(), peerPort: 1, store: store)
        let mirror = try await Node.start(network: network, peerPort: server.port)
        for (path, content) in [(manifestPath(manifest.digest), manifest), (blobPath(small.digest), small)] {
            for (condition, isCurrent) in [
                ("\"\(content.digest)\"", true), ("W/\"\(content.digest)\"", true), ("*", true),
                ("\"\(other)\", \"\(content.digest)\" ", true), ("\"\(other)\"", false),
                ("\"\(content.digest)x\"", false),
            ] {
                for node in [local, mirror] {
                    let client = try await VerifyingClient.connect(port: node.port)
                    let outcome = try await client.get(
                        path, fields: "If-None-Match: \(condition)\r\n", expected: content.buffer,
                        method: isCurrent ? "HEAD" : method)
                    #expect(
                        outcome == (isCurrent ? .refused(status: 304) : .right(status: 200)),
                        "\(condition), \(node.port == local.port ? "store" : "mirror")")
                    let head = try await client.head
                    #expect(head?.digest == "\(content.digest)")
                    await client.close()
                }
            }
        }
        await local.stop()
        await mirror.stop()
        await server.kill()
    }

    // MARK: Cut-off ranges

    /// containerd closes connections of parallel fetches before their end: what was served counts.
    @Test func aRangeThatTheClientCutsOffIsAHit() async throws {
        let server = try await serve([large], fault: .none)
        server.pause(at: 1_000_000)
        let network = InMemoryPeerNetwork()
        try await advertise(["\(large.digest)"], of: peer(1, [server.address]), in: network)
        let node = try await Node.start(network: network, peerPort: server.port)
        let client = try await VerifyingClient.connect(port: node.port)
        let answer = Task {
            try await client.get(
                blobPath(large.digest), fields: "Range: bytes=0-8000000\r\n", expected: large.buffer)
        }
        try await eventually {
            (node.metric(#"spegel_mirror_received_bytes_total{registry="docker.io"}"#) ?? 0) > 100_000
        }
        await client.reset()
        _ = try await answer.value
        try await eventually {
            node.metric(#"spegel_mirror_requests_total{cache="hit",cache_type="hit",registry="docker.io"}"#) == 1
        }
        await node.stop()
        server.resume()
        await server.kill()
    }
}
