import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import OCIDistribution
import PeerRouting
import TestSupport
import Testing

@testable import HTTPServer
@testable import MirrorServer

/// Measurements of a pull from a peer, and their bounds.
@Suite(.timeLimit(.minutes(5))) struct PullMeasurementTests {
    private static let quiet = Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() }
    private static let reference = "docker.io/\(Fixture.repository):1.0"

    /// A measurement beside one peer that listens on a port and is said to have everything of the fixture.
    private static func measurement(
        of fixture: Fixture, peerPort: Int, limits: PullMeasurement.Limits = .init()
    ) async throws -> PullMeasurement {
        let network = InMemoryPeerNetwork()
        let peer = InMemoryPeerRouter(
            peer: Peer(id: NodeIdentity().peerID, addresses: [.loopbackV4]), network: network)
        let digests = [fixture.manifestDigest, fixture.layerDigest, fixture.configDigest].map(\.description)
        try await peer.advertise([reference] + digests)
        let router = InMemoryPeerRouter(
            peer: Peer(id: NodeIdentity().peerID, addresses: [.loopbackV4]), network: network)
        var configuration = MirrorConfiguration()
        configuration.peers.port = peerPort
        return PullMeasurement(
            configuration: configuration, router: router, eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            limits: limits, logger: Self.quiet)
    }

    private static func start(_ measurement: PullMeasurement) throws {
        try measurement.start(
            Reference(parsing: reference),
            head: RequestHead(
                method: .POST, target: "/", version: .http1_1, fields: HeaderFields(bytes: ByteBuffer(), index: []),
                body: .none, keepAlive: true, expectsContinue: false))
    }

    /// The report of a measurement that has ended.
    private static func ended(_ measurement: PullMeasurement) async throws -> MeasurementReport {
        try await eventually("the end of the measurement") {
            measurement.report.flatMap { $0.phase == .running ? nil : $0 }
        }
    }

    /// Measures beside a peer that serves the fixture.
    private static func measure(
        _ fixture: Fixture, limits: PullMeasurement.Limits = .init()
    ) async throws -> MeasurementReport {
        let server = RegistryServer(
            configuration: .init(http: .init(listen: [ListenAddress(host: "127.0.0.1", port: 0)])),
            store: fixture.store, logger: Self.quiet)
        try await server.start()
        let measurement = try await measurement(
            of: fixture, peerPort: try #require(server.addresses.first?.port), limits: limits)
        try start(measurement)
        let report = try await ended(measurement)
        await measurement.shutdown()
        await server.shutdown(gracePeriod: .zero)
        return report
    }

    @Test func everyPieceIsVerified() async throws {
        let fixture = try await Fixture(layerBytes: 100_000)
        let report = try await Self.measure(fixture)
        #expect(report.phase == .completed, "\(report)")
        #expect(report.failure == nil)
        #expect(report.providers.count == 1)
        #expect(report.pieces.map(\.kind) == ["manifest", "config", "layer"])
        #expect(report.pieces.allSatisfy { $0.isVerified && $0.peers == [report.providers[0].id] })
        #expect(report.bytes == report.pieces.reduce(0) { $0 + $1.bytes })
        #expect(report.pieces.last?.bytes == 100_000)
    }

    @Test func bytesAreLimited() async throws {
        let report = try await Self.measure(try await Fixture(layerBytes: 100_000), limits: .init(bytes: 50_000))
        #expect(report.phase == .failed)
        #expect(report.failure?.hasSuffix("larger than the limit of a measurement") == true, "\(report)")
        #expect(report.bytes < 50_000)
    }

    @Test func piecesAreLimited() async throws {
        let report = try await Self.measure(try await Fixture(), limits: .init(pieces: 2))
        #expect(report.phase == .failed)
        #expect(report.failure == "more than 2 pieces")
        #expect(report.pieces.count == 2)
    }

    /// Calls `body` with the port of a server that accepts connections and never answers.
    private static func withSilentPeer(_ body: (Int) async throws -> Void) async throws {
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .bind(host: "127.0.0.1", port: 0).get()
        try await body(try #require(server.localAddress?.port))
        try await server.close()
    }

    @Test func timeIsLimited() async throws {
        try await Self.withSilentPeer { port in
            let measurement = try await Self.measurement(
                of: try await Fixture(), peerPort: port, limits: .init(time: .milliseconds(100)))
            try Self.start(measurement)
            let report = try await Self.ended(measurement)
            #expect(report.phase == .failed)
            #expect(report.failure == "not complete after 0.1 seconds")
            await measurement.shutdown()
        }
    }

    @Test func oneRunsAtATimeUntilItIsCancelled() async throws {
        try await Self.withSilentPeer { port in
            let measurement = try await Self.measurement(of: try await Fixture(), peerPort: port)
            try Self.start(measurement)
            #expect(throws: PullMeasurement.Refusal.busy) { try Self.start(measurement) }
            measurement.cancel()
            let report = try await Self.ended(measurement)
            #expect(report.phase == .cancelled)
            #expect(report.failure == nil)
            #expect(report.number == 1)
            try Self.start(measurement)
            #expect(measurement.report?.number == 2)
            await measurement.shutdown()
            #expect(throws: PullMeasurement.Refusal.ended) { try Self.start(measurement) }
        }
    }
}
