import NIOCore
import NIOPosix
import OCIDistribution
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

/// Clients that ask one node for the same at the same time.
@Suite(.timeLimit(.minutes(10))) struct SharingTests {
    private let manifest = SharedBytes.manifest(8)
    private let blob = SharedBytes(count: 3_000_000, seed: 21)

    /// A node with one event loop, so that all its clients can share, and a peer that answers when it is told to.
    private func withGate(
        _ contents: [SharedBytes], configure: (inout MirrorConfiguration) -> Void = { _ in },
        _ body: (Node, FaultyPeer, InMemoryPeerNetwork) async throws -> Void
    ) async throws {
        let network = InMemoryPeerNetwork()
        let source = try await FaultyPeer.start()
        source.hold()
        for content in contents {
            let isManifest = content.count < 1000
            source.serve(content, type: isManifest ? MediaType.imageManifest.rawValue : "application/octet-stream")
        }
        try await advertise(contents.map { "\($0.digest)" }, of: peer(1, [source.address]), in: network)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let node = try await Node.start(network: network, peerPort: source.port, group: group) {
            // A client whose thread stands still is no slow one.
            $0.slowClientTimeout = .seconds(3600)
            configure(&$0)
        }
        do {
            try await body(node, source, network)
        } catch {
            await node.stop()
            throw error
        }
        await node.stop()
        await source.kill()
        try await group.shutdownGracefully()
    }

    private func waitFor(_ count: Int, requestsAt node: Node) async throws {
        while node.engine.requestsUnderWay != count { try await Task.sleep(for: .milliseconds(2)) }
    }

    /// Asks with a client for each of `count`, and lets the peer answer when all have asked.
    private func ask(
        _ node: Node, _ source: FaultyPeer, count: Int, _ path: String, expected: ByteBuffer, method: String = "GET"
    ) async throws -> [Outcome: Int] {
        source.hold()
        return try await withThrowingTaskGroup(of: Outcome.self) { group in
            for _ in 0..<count {
                group.addTask {
                    try await VerifyingClient.get(port: node.port, path, expected: expected, method: method)
                }
            }
            try await waitFor(count, requestsAt: node)
            source.release()
            var outcomes: [Outcome: Int] = [:]
            for try await outcome in group { outcomes[outcome, default: 0] += 1 }
            return outcomes
        }
    }

    @Test func oneTransferServesAllWhoWait() async throws {
        try await withGate([manifest, blob]) { node, source, _ in
            let blobs = try await ask(node, source, count: 40, blobPath(blob.digest), expected: blob.buffer)
            #expect(blobs == [.right(status: 200): 40])
            #expect(source.requests.count == 1)
            let manifests = try await ask(
                node, source, count: 40, manifestPath(manifest.digest), expected: manifest.buffer)
            #expect(manifests == [.right(status: 200): 40])
            #expect(source.requests.count == 2)
            #expect(node.metric("spegel_mirror_shared_requests_total") == 78)
            #expect(node.engine.summary.hits == 80)
            #expect(node.engine.requestsUnderWay == 0)
        }
    }

    @Test func onlyWhatIsTheSameIsShared() async throws {
        try await withGate([manifest, blob]) { node, source, _ in
            let requests: [(String, String, String, ByteBuffer, Int)] = [
                ("GET", manifestPath(manifest.digest), "", manifest.buffer, 200),
                ("HEAD", manifestPath(manifest.digest), "", ByteBuffer(), 200),
                ("GET", "/v2/library/other/manifests/\(manifest.digest)?ns=docker.io", "", manifest.buffer, 200),
                ("GET", "/v2/library/demo/manifests/\(manifest.digest)?ns=quay.io", "", manifest.buffer, 200),
                ("GET", blobPath(blob.digest), "", blob.buffer, 200),
                ("GET", blobPath(blob.digest), "Range: bytes=5-9\r\n", blob.slice(5..<10), 206),
                ("GET", blobPath(blob.digest), "Range: bytes=5-9\r\n", blob.slice(5..<10), 206),
            ]
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (method, path, fields, expected, status) in requests {
                    group.addTask {
                        let outcome = try await VerifyingClient.get(
                            port: node.port, path, fields: fields, expected: expected, method: method)
                        #expect(outcome == .right(status: status), "\(method) \(path) \(fields)")
                    }
                }
                try await waitFor(requests.count, requestsAt: node)
                while source.requests.count < requests.count { try await Task.sleep(for: .milliseconds(2)) }
                source.release()
                try await group.waitForAll()
            }
            #expect(node.metric("spegel_mirror_shared_requests_total") == 0)
        }
    }

    /// The transfer belongs to all: whoever began it may leave.
    @Test func theFirstClientMayLeave() async throws {
        try await withGate([blob]) { node, source, _ in
            let first = try await VerifyingClient.connect(port: node.port)
            let left = Task { try await first.get(blobPath(blob.digest), expected: blob.buffer) }
            try await waitFor(1, requestsAt: node)
            let second = Task {
                try await VerifyingClient.get(port: node.port, blobPath(blob.digest), expected: blob.buffer)
            }
            try await waitFor(2, requestsAt: node)
            await first.reset()
            _ = try await left.value
            try await waitFor(1, requestsAt: node)
            source.release()
            #expect(try await second.value == .right(status: 200))
            #expect(source.requests.count == 1)
        }
    }

    /// Those who came later are not told what was true for the first: they look again.
    @Test func aMissIsNotShared() async throws {
        try await withGate([manifest]) { node, source, network in
            let path = manifestPath(manifest.digest)
            let outcomes = try await withThrowingTaskGroup(of: Outcome.self) { group in
                for _ in 0..<10 {
                    group.addTask { try await VerifyingClient.get(port: node.port, path, expected: manifest.buffer) }
                }
                try await waitFor(10, requestsAt: node)
                // The first one's lookup was made before there is another peer.
                try await eventually { !source.requests.isEmpty }
                let other = try await FaultyPeer.start(port: source.port)
                other.serve(manifest, type: MediaType.imageManifest.rawValue)
                try await advertise(["\(manifest.digest)"], of: peer(2, [other.address]), in: network)
                source.setFault(.status404)
                source.release()
                var outcomes: [Outcome: Int] = [:]
                for try await outcome in group { outcomes[outcome, default: 0] += 1 }
                await other.kill()
                return outcomes
            }
            #expect(outcomes == [.right(status: 200): 9, .refused(status: 404): 1])
            #expect(node.engine.requestsUnderWay == 0)
        }
    }

    /// A client that does not read holds the others up for a moment only, and still gets the right bytes at its own pace.
    @Test(arguments: [VerificationPolicy.on, .off])
    func aSlowClientGoesOnAlone(verification: VerificationPolicy) async throws {
        let large = SharedBytes(count: 40_000_000, seed: 22)
        func configure(_ configuration: inout MirrorConfiguration) {
            configuration.verification = verification
            // Long enough for those that read, also when their thread stands still for a while.
            configuration.slowClientTimeout = .seconds(10)
        }
        try await withGate([large], configure: configure) { node, source, _ in
            let path = blobPath(large.digest)
            let slow = try await VerifyingClient.connect(port: node.port, receiveBuffer: 16 * 1024, isReading: false)
            let late = Task { try await slow.get(path, expected: large.buffer) }
            try await waitFor(1, requestsAt: node)
            let fast = (0..<3).map { _ in
                Task { try await VerifyingClient.get(port: node.port, path, expected: large.buffer) }
            }
            try await waitFor(4, requestsAt: node)
            source.release()
            for client in fast { #expect(try await client.value == .right(status: 200)) }
            // What is not checked has been sent before the request counts as ended.
            try await waitFor(1, requestsAt: node)
            await slow.startReading()
            #expect(try await late.value == .right(status: 200))
            #expect(source.requests.count == 2)
            #expect(source.requests.last?.contains("\r\nRange: bytes=") ?? false)
            try await eventually { node.metric("spegel_mirror_transfers_inflight") == 0 }
            await slow.close()
        }
    }

    /// Whoever went on alone is protected by the digest as before, over the bytes it got together with the others, too.
    @Test func aLieIsFoundOutByThoseWhoGoOnAlone() async throws {
        let large = SharedBytes(count: 40_000_000, seed: 23)
        try await withGate([large], configure: { $0.slowClientTimeout = .milliseconds(500) }) { node, source, _ in
            let path = blobPath(large.digest)
            source.setWrongFirstByte(true)
            let slow = try await VerifyingClient.connect(port: node.port, receiveBuffer: 16 * 1024, isReading: false)
            let late = Task { try await slow.get(path, expected: large.buffer) }
            try await waitFor(1, requestsAt: node)
            let fast = Task { try await VerifyingClient.get(port: node.port, path, expected: large.buffer) }
            try await waitFor(2, requestsAt: node)
            source.release()
            guard case .brokenWrong = try await fast.value else {
                Issue.record("a wrong body was completed")
                return
            }
            // The rest is the true one; with the wrong beginning it is wrong all the same.
            source.setWrongFirstByte(false)
            await slow.startReading()
            guard case .brokenWrong = try await late.value else {
                Issue.record("a wrong body was completed")
                return
            }
            await slow.close()
        }
    }

    /// The digest of a forked hasher is that of the bytes before and after the fork, whenever it is made.
    @Test(arguments: 0..<24)
    func forkedHashersHashTheWhole(seed: Int) async throws {
        var random = SplitMix64(seed: UInt64(seed))
        let content = SharedBytes(count: Int.random(in: 1...3_000_000, using: &random), seed: UInt64(seed))
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let pool = HashingThreadPool(threads: 2)
        func append(_ rest: inout ByteBuffer, to hasher: BackgroundHasher, upTo end: Int) {
            while content.count - rest.readableBytes < end {
                let most = end - (content.count - rest.readableBytes)
                guard let chunk = rest.readSlice(length: min(most, Int.random(in: 1...200_000, using: &random))) else {
                    return
                }
                hasher.append(chunk)
            }
        }
        func isVerified(_ hasher: BackgroundHasher) async throws -> Bool {
            let promise = loop.makePromise(of: Bool.self)
            hasher.finish { result in promise.succeed((try? result.get()) != nil) }
            return try await promise.futureResult.get()
        }
        let hasher = BackgroundHasher(
            expected: content.digest, size: Int64(content.count), pool: pool, eventLoop: loop, onProgress: {})
        var rest = content.buffer
        append(&rest, to: hasher, upTo: Int.random(in: 0...content.count, using: &random))
        let fork = hasher.fork {}
        let wrong = hasher.fork {}
        let atFork = rest
        if seed % 3 == 0 {
            // What becomes of the first does not matter.
            hasher.cancel()
        } else {
            append(&rest, to: hasher, upTo: content.count)
            #expect(try await isVerified(hasher))
        }
        rest = atFork
        append(&rest, to: fork, upTo: content.count)
        #expect(try await isVerified(fork))
        if atFork.readableBytes > 0 {
            var other = atFork
            other.setInteger((other.getInteger(at: other.readerIndex, as: UInt8.self) ?? 0) ^ 1, at: other.readerIndex)
            wrong.append(other)
            let isRight = try await isVerified(wrong)
            #expect(!isRight)
        }
    }
}
