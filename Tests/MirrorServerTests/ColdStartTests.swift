import ContentClaims
import ContentStore
import Foundation
import HTTPTestKit
import Logging
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

/// Nodes that want the same new content, each with a client that does what containerd does: it opens its ingest, asks the mirror,
/// goes on from where it is when a response ends early, and asks the upstream when the mirror has nothing.
@Suite(.serialized, .timeLimit(.minutes(5))) struct ColdStartTests {
    /// Counts what it sends. It is slow enough for the others to begin meanwhile.
    private final class Upstream: Sendable {
        let content: [UInt8]
        private let sent = NIOLockedValueBox(0)
        private let gate = NIOLockedValueBox<Int>(.max)
        /// Sends one wrong byte to the one that comes first.
        let spoilsFirst: Bool
        var sentBytes: Int { sent.withLockedValue { $0 } }

        init(_ content: [UInt8], spoilsFirst: Bool = false) {
            self.content = content
            self.spoilsFirst = spoilsFirst
        }

        /// Holds everything back from this byte on.
        func hold(at byte: Int) { gate.withLockedValue { $0 = byte } }

        func read(at offset: Int, count: Int) async throws -> ByteBuffer {
            while gate.withLockedValue({ $0 }) <= offset { try await Task.sleep(for: .milliseconds(2)) }
            let end = min(offset + count, content.count)
            let isFirst = sent.withLockedValue { sent in
                defer { sent += end - offset }
                return sent == 0
            }
            var bytes = Array(content[offset..<end])
            if isFirst, spoilsFirst { bytes[0] ^= 0xff }
            return ByteBuffer(bytes: bytes)
        }
    }

    private final class Machine: Sendable {
        let node: MirrorNode
        let store = InMemoryContentStore()
        let router: InMemoryPeerRouter
        let address: String

        init(_ number: Int, network: InMemoryPeerNetwork, coldStart: Bool = true) throws {
            address = "127.81.\(number / 200).\(1 + number % 200)"
            let ip = try #require(IPAddress(address))
            router = InMemoryPeerRouter(
                peer: Peer(id: NodeIdentity().peerID, addresses: [ip], observedAddresses: [ip]), network: network)
            var configuration = MirrorNode.Configuration(
                store: store, router: router,
                registryAddress: ListenAddress(host: address, port: UInt16(ColdStartTests.port)),
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
            if !coldStart { configuration.mirror.coldStart = nil }
            node = try MirrorNode(configuration)
        }

        /// How often the mirror was asked, and what the upstream sent for it.
        struct Pull: Sendable {
            var requests = 0
            var fromUpstream = 0
        }

        /// - Parameter giveUpAt: ends after so many bytes, as a client that is killed.
        func pull(_ digest: Digest, from upstream: Upstream, kind: String = "blobs", giveUpAt: Int = .max) async throws
            -> Pull
        {
            var pull = Pull()
            let size = upstream.content.count
            let writer = try await store.beginWrite(digest, size: Int64(size))
            while writer.offset < size {
                pull.requests += 1
                let start = Int(writer.offset)
                try await RawClient.with(port: ColdStartTests.port, host: address) { client in
                    let range = start > 0 ? "Range: bytes=\(start)-\r\n" : ""
                    try await client.send(
                        "GET /v2/library/demo/\(kind)/\(digest)?ns=docker.io HTTP/1.1\r\nHost: test\r\n\(range)\r\n")
                    guard try await client.head().status < 300 else { return }
                    // What comes before the connection is closed is kept.
                    while writer.offset < size, let part = try? await client.body(min(4096, size - Int(writer.offset)))
                    {
                        try await writer.append(part)
                        if writer.offset >= giveUpAt { return }
                    }
                }
                if writer.offset >= giveUpAt { break }
                guard Int(writer.offset) == start else { continue }
                while writer.offset < size, writer.offset < giveUpAt {
                    let part = try await upstream.read(at: Int(writer.offset), count: 4096)
                    pull.fromUpstream += part.readableBytes
                    try await writer.append(part)
                    try await Task.sleep(for: .microseconds(200))
                }
                if writer.offset >= giveUpAt { break }
            }
            if writer.offset >= giveUpAt { await writer.abort() } else { _ = try await writer.commit() }
            return pull
        }
    }

    private static let port = 15_000 + Int(getpid()) % 10_000

    private static func content(_ size: Int, seed: UInt64 = 1) -> ([UInt8], Digest) {
        var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        let bytes = (0..<size).map { _ -> UInt8 in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 56)
        }
        return (bytes, Digest.hash(.sha256, of: bytes))
    }

    private static func withMachines(
        _ count: Int, coldStart: @Sendable (Int) -> Bool = { _ in true },
        _ body: ([Machine]) async throws -> Void
    ) async throws {
        let network = InMemoryPeerNetwork()
        // A machine that stalls does not lose its leases.
        var limits = ClaimTable<PeerID>.Limits()
        (limits.lease, limits.growth) = (.minutes(5), .minutes(5))
        network.state.withLock { $0.claims = ClaimTable(limits: limits) }
        let machines = try (0..<count).map { try Machine($0, network: network, coldStart: coldStart($0)) }
        for machine in machines { try await machine.node.start() }
        do { try await body(machines) } catch {
            for machine in machines { await machine.node.shutdown() }
            throw error
        }
        for machine in machines {
            // Nothing is left of what was claimed.
            try await eventually { machine.node.coldStartContents == 0 }
            await machine.node.shutdown()
        }
    }

    @Test(arguments: [5_000, 400_000, 3_000_000]) func oneCopyForAll(size: Int) async throws {
        let (bytes, digest) = Self.content(size)
        let upstream = Upstream(bytes)
        try await Self.withMachines(6) { machines in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for machine in machines { group.addTask { _ = try await machine.pull(digest, from: upstream) } }
                try await group.waitForAll()
            }
            #expect(upstream.sentBytes == size)
            for machine in machines { #expect(try await machine.store.info(digest)?.size == Int64(size)) }
        }
    }

    @Test func aManifestIsSentAsAWhole() async throws {
        let config = Digest.hash(.sha256, of: Array("config".utf8))
        let manifest = Array(
            """
            {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":\
            "application/vnd.oci.image.config.v1+json","digest":"\(config)","size":6},"layers":[]}
            """.utf8)
        let digest = Digest.hash(.sha256, of: manifest)
        let upstream = Upstream(manifest)
        try await Self.withMachines(5) { machines in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for machine in machines {
                    group.addTask { _ = try await machine.pull(digest, from: upstream, kind: "manifests") }
                }
                try await group.waitForAll()
            }
            #expect(upstream.sentBytes == manifest.count)
        }
    }

    /// The leader's client is killed: one of the others goes on from the byte that it has.
    @Test func anotherLeadsWhenTheLeaderGivesUp() async throws {
        let (bytes, digest) = Self.content(2_000_000, seed: 2)
        let upstream = Upstream(bytes)
        upstream.hold(at: 1_000_000)
        try await Self.withMachines(5) { machines in
            let leader = Task { try await machines[0].pull(digest, from: upstream, giveUpAt: 1_000_000) }
            try await eventually { upstream.sentBytes > 100_000 }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for machine in machines.dropFirst() {
                    group.addTask { _ = try await machine.pull(digest, from: upstream) }
                }
                _ = try await leader.value
                upstream.hold(at: .max)
                try await group.waitForAll()
            }
            // Nobody fetches what it has; at most the piece that was on its way is sent again.
            #expect(upstream.sentBytes < 2 * bytes.count)
            for machine in machines.dropFirst() { #expect(try await machine.store.info(digest) != nil) }
        }
    }

    /// A client that leaves takes nothing from the others.
    @Test func aFollowerLeaves() async throws {
        let (bytes, digest) = Self.content(2_000_000, seed: 3)
        let upstream = Upstream(bytes)
        try await Self.withMachines(6) { machines in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (number, machine) in machines.enumerated() {
                    group.addTask {
                        if number > 0 { try await eventually { upstream.sentBytes > 0 } }
                        let end = number == 1 || number == 2 ? 700_000 : .max
                        _ = try await machine.pull(digest, from: upstream, giveUpAt: end)
                    }
                }
                try await group.waitForAll()
            }
            #expect(upstream.sentBytes < 2 * bytes.count)
            for number in [0, 3, 4, 5] { #expect(try await machines[number].store.info(digest) != nil) }
        }
    }

    /// What a leader relays is verified by each of the others, and wrong bytes send them to the upstream: nobody has them in the end.
    @Test func wrongBytesOfALeaderAreReplaced() async throws {
        let (bytes, digest) = Self.content(400_000, seed: 6)
        let upstream = Upstream(bytes, spoilsFirst: true)
        try await Self.withMachines(4) { machines in
            let leader = Task { try await machines[0].pull(digest, from: upstream) }
            try await eventually { upstream.sentBytes > 0 }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for machine in machines.dropFirst() {
                    group.addTask { _ = try await machine.pull(digest, from: upstream) }
                }
                try await group.waitForAll()
            }
            await #expect(throws: ContentStoreError.self) { try await leader.value }
            for machine in machines.dropFirst() { #expect(try await machine.store.info(digest) != nil) }
        }
    }

    @Test func oneThatTakesNoPartIsLeftToItsUpstream() async throws {
        let (bytes, digest) = Self.content(500_000, seed: 4)
        let upstream = Upstream(bytes)
        try await Self.withMachines(4) {
            $0 > 0
        } _: { machines in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for machine in machines { group.addTask { _ = try await machine.pull(digest, from: upstream) } }
                try await group.waitForAll()
            }
            #expect(upstream.sentBytes <= 2 * bytes.count)
        }
    }

    /// Neither another client nor a peer without a claim makes a node fetch, or wait.
    @Test func onlyAPullThatHasBegunClaims() async throws {
        let (_, digest) = Self.content(1000, seed: 5)
        try await Self.withMachines(2) { machines in
            let path = "/v2/library/demo/blobs/\(digest)?ns=docker.io"
            for fields in ["", "X-Spegel-Mirrored: true\r\n"] {
                let status = try await RawClient.with(port: Self.port, host: machines[0].address) {
                    try await $0.request(path, fields: fields).status
                }
                #expect(status == 404)
            }
            #expect(machines[0].node.coldStartContents == 0)
        }
    }
}
