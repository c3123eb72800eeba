import ContentStore
import NIOCore
import NIOPosix
import OCIDistribution
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

@Suite(.timeLimit(.minutes(10))) struct EngineTests {
    private let manifest = SharedBytes.manifest(7)
    private let blob = SharedBytes(count: 3_000_000, seed: 11)

    /// Peers, one for each fault, that all have the same content, and a node that knows them.
    private func withPeers(
        _ faults: [Fault], _ contents: [SharedBytes], advertised: Bool = true,
        configure: (inout MirrorConfiguration) -> Void = { _ in },
        _ body: (Node, [FaultyPeer]) async throws -> Void
    ) async throws {
        let network = InMemoryPeerNetwork()
        var peers: [FaultyPeer] = []
        for (index, fault) in faults.enumerated() {
            let started = try await FaultyPeer.start(port: peers.first?.port ?? 0, fault: fault)
            for content in contents {
                let isManifest = content.count < 1000
                started.serve(content, type: isManifest ? MediaType.imageManifest.rawValue : "application/octet-stream")
            }
            peers.append(started)
            if advertised {
                try await advertise(
                    contents.map { "\($0.digest)" }, of: peer(UInt8(1 + index), [started.address]), in: network)
            }
        }
        let node = try await Node.start(network: network, peerPort: peers.first?.port ?? 1, configure: configure)
        do {
            try await body(node, peers)
        } catch {
            await node.stop()
            throw error
        }
        await node.stop()
        for peer in peers { await peer.kill() }
    }

    @Test func answersCarryTheHeadersOfARegistry() async throws {
        try await withPeers([.none], [manifest, blob]) { node, _ in
            let client = try await VerifyingClient.connect(port: node.port)
            #expect(
                try await client.get(manifestPath(manifest.digest), expected: manifest.buffer) == .right(status: 200))
            var head = try #require(try await client.head)
            #expect(head.contentType == MediaType.imageManifest.rawValue)
            #expect(head.digest == "\(manifest.digest)")
            #expect(try await client.get(blobPath(blob.digest), expected: blob.buffer) == .right(status: 200))
            head = try #require(try await client.head)
            #expect(head.contentType == "application/octet-stream")
            #expect(head.contentLength == 3_000_000)
            let part = blob.slice(100..<200)
            #expect(
                try await client.get(blobPath(blob.digest), fields: "Range: bytes=100-199\r\n", expected: part)
                    == .right(status: 206))
            head = try #require(try await client.head)
            #expect(head.contentRange == "bytes 100-199/3000000")
            #expect(
                try await client.get(
                    blobPath(blob.digest), fields: "Range: bytes=-10\r\n", expected: blob.slice(2_999_990..<3_000_000))
                    == .right(status: 206))
            #expect(
                try await client.get(
                    blobPath(blob.digest), fields: "Range: bytes=3000000-\r\n", expected: ByteBuffer())
                    == .refused(status: 416))
            head = try #require(try await client.head)
            #expect(head.contentRange == "bytes */3000000")
            for path in [manifestPath(manifest.digest), blobPath(blob.digest)] {
                let outcome = try await client.get(path, expected: ByteBuffer(), method: "HEAD")
                #expect(outcome == .right(status: 200))
            }
            head = try #require(try await client.head)
            #expect(head.contentLength == 3_000_000)
            #expect(node.metric(#"spegel_mirror_verifications_total{result="partial"}"#) == 2)
            #expect(node.metric(#"spegel_mirror_verifications_total{result="verified"}"#) == 2)
            await client.close()
        }
    }

    @Test func tagsAreLookedUpByTheirFullName() async throws {
        try await withPeers([.none], [manifest], advertised: false) { node, peers in
            peers[0].serve(manifest, tag: "1.0", type: MediaType.imageManifest.rawValue)
            try await advertise(
                ["docker.io/library/demo:1.0"], of: peer(1, [peers[0].address]), in: node.router.network)
            let outcome = try await VerifyingClient.get(
                port: node.port, "/v2/library/demo/manifests/1.0?ns=docker.io", expected: manifest.buffer)
            #expect(outcome == .right(status: 200))
            #expect(
                try await VerifyingClient.get(
                    port: node.port, "/v2/library/demo/manifests/1.0?ns=quay.io", expected: manifest.buffer)
                    == .refused(status: 404))
        }
    }

    @Test func requestsToPeersAreMarked() async throws {
        try await withPeers(
            [.none], [manifest],
            configure: {
                $0.peers.credentials = BasicCredentials(username: "u", password: "p")
            }
        ) { node, peers in
            _ = try await VerifyingClient.get(port: node.port, manifestPath(manifest.digest), expected: manifest.buffer)
            let request = try #require(peers[0].requests.first)
            #expect(request.contains("\r\nX-Spegel-Mirrored: true\r\n"))
            #expect(request.contains("\r\nAuthorization: Basic dTpw\r\n"))
            #expect(request.hasPrefix("GET /v2/library/demo/manifests/\(manifest.digest)?ns=docker.io HTTP/1.1\r\n"))
        }
    }

    @Test func contentNobodyHasIsNotFoundAtOnce() async throws {
        try await withPeers([.none], [manifest]) { node, _ in
            let missing = Digest.hash(of: "missing".utf8)
            let outcome = try await VerifyingClient.get(port: node.port, blobPath(missing), expected: ByteBuffer())
            #expect(outcome == .refused(status: 404))
            #expect(
                node.metric(
                    #"spegel_mirror_requests_total{cache="miss",cache_type="miss",registry="docker.io"}"#) == 1)
        }
    }

    @Test func aLiarIsBlamedAndNotAskedAgain() async throws {
        try await withPeers([.wrongByte, .none], [manifest]) { node, peers in
            let path = manifestPath(manifest.digest)
            let mismatches = #"spegel_mirror_verifications_total{result="mismatch"}"#
            // Asked as well when the liar is slow, the other one could win before the lie is found out.
            peers[1].hold()
            let first = Task { try await VerifyingClient.get(port: node.port, path, expected: manifest.buffer) }
            try await eventually { node.metric(mismatches) == 1 }
            peers[1].release()
            #expect(try await first.value == .right(status: 200))
            for _ in 0..<2 {
                let outcome = try await VerifyingClient.get(port: node.port, path, expected: manifest.buffer)
                #expect(outcome == .right(status: 200))
            }
            #expect(peers[0].requests.count == 1)
            #expect(node.metric(mismatches) == 1)
        }
    }

    @Test func whoLiesRepeatedlyIsAskedForNothing() async throws {
        let contents = (0..<8).map { SharedBytes(count: 5000, seed: UInt64(100 + $0)) }
        try await withPeers([.wrongByte, .none], contents) { node, peers in
            for (index, content) in contents.enumerated() {
                // While the liar is asked, the other one must not win before the lie is found out.
                let isAsked = index < PeerStats.exclusionThreshold
                if isAsked { peers[1].hold() }
                let answer = Task {
                    try await VerifyingClient.get(port: node.port, blobPath(content.digest), expected: content.buffer)
                }
                if isAsked {
                    try await eventually {
                        node.metric(#"spegel_mirror_verifications_total{result="mismatch"}"#) == Double(index + 1)
                    }
                    peers[1].release()
                }
                #expect(try await answer.value == .right(status: 200))
            }
            #expect(peers[0].requests.count == PeerStats.exclusionThreshold)
        }
    }

    @Test func withoutVerificationLiesPass() async throws {
        try await withPeers([.wrongByte], [blob], configure: { $0.verification = .off }) { node, _ in
            let outcome = try await VerifyingClient.get(port: node.port, blobPath(blob.digest), expected: blob.buffer)
            #expect(outcome == .wrong(status: 200, bytes: blob.count))
            // What is not checked has been sent before it is counted.
            try await eventually { node.metric(#"spegel_mirror_verifications_total{result="off"}"#) == 1 }
        }
    }

    @Test func aLargeBodyIsNeverCompletedWithoutItsDigest() async throws {
        try await withPeers([.wrongLastByte], [blob]) { node, _ in
            let outcome = try await VerifyingClient.get(port: node.port, blobPath(blob.digest), expected: blob.buffer)
            // The wrong byte is among those withheld, so that what came is right, and short.
            guard case .broken(let bytes) = outcome else {
                Issue.record("\(outcome)")
                return
            }
            #expect(bytes > 0 && bytes <= blob.count - 64 * 1024)
        }
    }

    @Test func aTransferIsCarriedOnAnyNumberOfTimes() async throws {
        // Each peer breaks off half way of what is left; the first to be asked again goes on.
        try await withPeers(
            [.closedInBody, .resetInBody, .closedInBody], [blob], configure: { $0.resumeTimeout = .seconds(5) }
        ) {
            node, peers in
            let outcome = try await VerifyingClient.get(port: node.port, blobPath(blob.digest), expected: blob.buffer)
            // Halving never arrives, so it ends broken, but only after many halves.
            guard case .broken(let bytes) = outcome else {
                Issue.record("\(outcome)")
                return
            }
            #expect(bytes >= blob.count * 9 / 10 - 64 * 1024)
            #expect(peers.reduce(0) { $0 + $1.requests.count } >= 5)
        }
    }

    /// It answers as quickly as the first time, and would win whenever a lookup names it first.
    @Test func whoStoodStillIsNotAskedAgainWhileThereIsSomebodyElse() async throws {
        // Longer than a lookup is remembered.
        try await withPeers(
            [.stallInBody, .none], [manifest], configure: { $0.peers.progressTimeout = .seconds(6) }
        ) { node, peers in
            peers[1].hold()
            let answer = Task {
                try await VerifyingClient.get(
                    port: node.port, manifestPath(manifest.digest), expected: manifest.buffer)
            }
            try await eventually { node.metric("spegel_mirror_transfers_inflight") == 1 }
            peers[1].release()
            #expect(try await answer.value == .right(status: 200))
            #expect(peers[0].requests.count == 1)
        }
    }

    @Test func aLargeTransferIsCarriedOnByAnotherPeer() async throws {
        let large = SharedBytes(count: 120_000_000, seed: 13)
        try await withPeers([.closedInBody, .none], [large]) { node, peers in
            // The one that breaks off has to begin, however slow it is, and the other one to be there when it does.
            peers[0].pause(at: 1_000_000)
            peers[1].hold()
            let answer = Task {
                try await VerifyingClient.get(port: node.port, blobPath(large.digest), expected: large.buffer)
            }
            try await eventually { node.metric("spegel_mirror_transfers_inflight") == 1 }
            peers[1].release()
            peers[0].resume()
            #expect(try await answer.value == .right(status: 200))
            // Once for the cut; again where the machine is so busy that a peer stands still for a while.
            #expect((node.metric("spegel_mirror_resumes_total") ?? 0) >= 1, "\(peers.map(\.requests))")
        }
    }

    @Test func peersAreDialledOnceForEveryoneWhenTheyAreDown() async throws {
        try await withPeers([.refused], [manifest]) { node, _ in
            let before = node.metric("spegel_mirror_peer_requests_total") ?? 0
            #expect(before == 0)
            for _ in 0..<5 {
                let outcome = try await VerifyingClient.get(
                    port: node.port, manifestPath(manifest.digest), expected: manifest.buffer)
                #expect(outcome == .refused(status: 404))
            }
        }
    }

    @Test func aPeerThatComesBackIsFoundAgain() async throws {
        try await withPeers([.none], [manifest]) { node, peers in
            let port = peers[0].port
            await peers[0].kill()
            let path = manifestPath(manifest.digest)
            #expect(
                try await VerifyingClient.get(port: node.port, path, expected: manifest.buffer) == .refused(status: 404)
            )
            let back = try await FaultyPeer.start(at: peers[0].address, port: port)
            back.serve(manifest, type: MediaType.imageManifest.rawValue)
            try await eventually {
                try await Task.sleep(for: .milliseconds(50))
                let outcome = try await VerifyingClient.get(port: node.port, path, expected: manifest.buffer)
                return outcome == .right(status: 200)
            }
            await back.kill()
        }
    }

    /// What was found is remembered for seconds; whoever has got the content since then is found nevertheless.
    @Test func aPeerThatIsNewIsFoundWhenTheOldOneIsGone() async throws {
        try await withPeers([.none], [manifest, blob]) { node, peers in
            for content in [manifest, blob] {
                let path = content.digest == blob.digest ? blobPath(content.digest) : manifestPath(content.digest)
                #expect(
                    try await VerifyingClient.get(port: node.port, path, expected: content.buffer)
                        == .right(status: 200))
            }
            let new = try await FaultyPeer.start(port: peers[0].port)
            new.serve(manifest, type: MediaType.imageManifest.rawValue)
            new.serve(blob)
            try await advertise(
                ["\(manifest.digest)", "\(blob.digest)"], of: peer(9, [new.address]), in: node.router.network)
            await peers[0].kill()
            #expect(
                try await VerifyingClient.get(
                    port: node.port, manifestPath(manifest.digest), expected: manifest.buffer) == .right(status: 200))
            #expect(
                try await VerifyingClient.get(port: node.port, blobPath(blob.digest), expected: blob.buffer)
                    == .right(status: 200))
            await new.kill()
        }
    }

    @Test func beyondTheLimitOfTransfersRequestsAreTurnedAway() async throws {
        try await withPeers(
            [.stallBeforeHead], [blob],
            configure: {
                $0.concurrentTransfers = 1
                $0.peers.firstByteTimeout = .seconds(15)
            }
        ) { node, peers in
            let waiting = try await VerifyingClient.connect(port: node.port)
            let answer = Task { try await waiting.get(blobPath(blob.digest), expected: blob.buffer) }
            while peers[0].requests.isEmpty { try await Task.sleep(for: .milliseconds(5)) }
            let client = try await VerifyingClient.connect(port: node.port)
            var outcome = try await client.get(blobPath(blob.digest), expected: blob.buffer)
            #expect(outcome == .refused(status: 429))
            #expect(try await client.refusal.contains("TOOMANYREQUESTS"))
            // The peer's time is over: the place is free again.
            #expect(try await answer.value == .refused(status: 404))
            peers[0].setFault(.none)
            outcome = try await client.get(blobPath(blob.digest), expected: blob.buffer)
            #expect(outcome == .right(status: 200))
            await client.close()
            await waiting.close()
        }
    }

    @Test func aPeerWithADeadAddressIsReachedOnTheOther() async throws {
        let live = try await FaultyPeer.start()
        live.serve(manifest, type: MediaType.imageManifest.rawValue)
        let network = InMemoryPeerNetwork()
        try await advertise(
            ["\(manifest.digest)"], of: peer(1, [unusedAddress(), .loopbackV6, live.address]), in: network)
        let node = try await Node.start(network: network, peerPort: live.port)
        let outcome = try await VerifyingClient.get(
            port: node.port, manifestPath(manifest.digest), expected: manifest.buffer)
        #expect(outcome == .right(status: 200))
        await node.stop()
        await live.kill()
    }

    @Test func itNeverAsksItself() async throws {
        let network = InMemoryPeerNetwork()
        let node = try await Node.start(network: network, peerPort: 1)
        // A router that names the node itself would make it ask itself for ever.
        try await advertise(["\(manifest.digest)"], of: node.router.localPeer, in: network)
        let outcome = try await VerifyingClient.get(
            port: node.port, manifestPath(manifest.digest), expected: manifest.buffer)
        #expect(outcome == .refused(status: 404))
        #expect(node.metric("spegel_mirror_peer_requests_total") == 0)
        await node.stop()
    }

    @Test func aRealNodeServesAnother() async throws {
        let source = InMemoryContentStore()
        let network = InMemoryPeerNetwork()
        try await source.write(manifest.buffer, as: manifest.digest)
        try await source.write(blob.buffer, as: blob.digest)
        let first = try await Node.start(network: network, peerPort: 1, store: source, id: 1)
        let second = try await Node.start(network: network, peerPort: first.port, id: 2)
        try await first.router.advertise(["\(manifest.digest)", "\(blob.digest)"])
        #expect(
            try await VerifyingClient.get(
                port: second.port, manifestPath(manifest.digest), expected: manifest.buffer) == .right(status: 200))
        #expect(
            try await VerifyingClient.get(port: second.port, blobPath(blob.digest), expected: blob.buffer)
                == .right(status: 200))
        #expect(second.engine.summary.hits == 2)
        #expect(second.engine.summary.lastSuccess != nil)
        await second.stop()
        await first.stop()
    }

    /// A client that closes its connection before there is an answer, as one that was stopped does.
    @Test func aClientThatHangsUpIsNotWaitedFor() async throws {
        let never = Duration.seconds(36_000)
        try await withPeers(
            [.stallBeforeHead], [manifest],
            configure: {
                $0.peers.firstByteTimeout = never
                $0.manifestTimeout = never
            }
        ) { node, peers in
            let client = try await VerifyingClient.connect(port: node.port)
            let answer = Task { try await client.get(manifestPath(manifest.digest), expected: manifest.buffer) }
            while peers[0].requests.isEmpty { try await Task.sleep(for: .milliseconds(2)) }
            await client.close()
            _ = try await answer.value
            while node.engine.requestsUnderWay > 0 { try await Task.sleep(for: .milliseconds(2)) }
        }
    }

    /// One more connection that does not come about says nothing against a peer that serves others meanwhile.
    @Test func aFailedDialDoesNotFailWhoCanBeServedOtherwise() async throws {
        let long = Duration.seconds(300)
        let network = InMemoryPeerNetwork()
        let source = try await FaultyPeer.start()
        source.serve(manifest, type: MediaType.imageManifest.rawValue)
        source.serve(blob)
        source.hold()
        try await advertise(["\(manifest.digest)", "\(blob.digest)"], of: peer(1, [source.address]), in: network)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let node = try await Node.start(network: network, peerPort: source.port, group: group) {
            $0.peers.firstByteTimeout = long
            $0.peers.queueTimeout = long
            $0.manifestTimeout = long
        }
        async let first = VerifyingClient.get(port: node.port, blobPath(blob.digest), expected: blob.buffer)
        while source.requests.isEmpty { try await Task.sleep(for: .milliseconds(2)) }
        await source.stopListening()
        async let second = VerifyingClient.get(
            port: node.port, manifestPath(manifest.digest), expected: manifest.buffer)
        while node.engine.requestsUnderWay < 2 || node.metric("spegel_mirror_peer_requests_total") != 2 {
            try await Task.sleep(for: .milliseconds(2))
        }
        // Long enough for the dial to be refused, in most cases; the answers are the same if it was not.
        try await Task.sleep(for: .milliseconds(200))
        source.release()
        let outcomes = try await [first, second]
        #expect(outcomes == [.right(status: 200), .right(status: 200)])
        await node.stop()
        await source.kill()
        try await group.shutdownGracefully()
    }

    @Test func aClientThatLeavesEndsTheTransfer() async throws {
        let large = SharedBytes(count: 64_000_000, seed: 12)
        try await withPeers([.none], [large]) { node, peers in
            let client = try await VerifyingClient.connect(port: node.port, receiveBuffer: 16 * 1024, isReading: false)
            let answer = Task { try await client.get(blobPath(large.digest), expected: large.buffer) }
            try await eventually { node.metric("spegel_mirror_transfers_inflight") == 1 }
            await client.close()
            _ = try await answer.value
            // The engine lets the peer go: its connection is closed rather than read to the end.
            while node.metric("spegel_mirror_transfers_inflight") != 0 { try await Task.sleep(for: .milliseconds(5)) }
            #expect(peers[0].bodyBytes < large.count)
        }
    }
}

extension InMemoryContentStore {
    /// Writes a whole content.
    func write(_ bytes: ByteBuffer, as digest: Digest) async throws {
        let writer = try await beginWrite(digest, size: Int64(bytes.readableBytes))
        try await writer.append(bytes)
        _ = try await writer.commit()
    }
}
