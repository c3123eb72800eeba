import ContentStore
import Foundation
import HTTPServer
import Logging
import Metrics
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import OCIDistribution
import PeerRoutingCore

/// What a measurement has found so far, as `GET /debug/web/measurement` has it. Names and meanings stay; new ones may come.
package struct MeasurementReport: Sendable, Hashable, Codable {
    /// Where a measurement stands.
    package enum Phase: String, Sendable, Hashable, Codable {
        case running, completed, failed, cancelled
    }

    /// A peer that provides the image.
    package struct Provider: Sendable, Hashable, Codable {
        /// The peer ID.
        package var id: String
        /// Its IP addresses.
        package var addresses: [String]
        /// From the start of the lookup until it was found.
        package var milliseconds: Double
    }

    /// A manifest, config or layer.
    package struct Piece: Sendable, Hashable, Codable {
        /// `manifest`, `config` or `layer`.
        package var kind: String
        /// The digest, or the tag that was asked for.
        package var reference: String
        /// Bytes received.
        package var bytes: Int64 = 0
        /// Bytes of the whole piece; nil before a peer has answered.
        package var totalBytes: Int64?
        /// When it was asked for, in milliseconds since the start of the measurement.
        package var start: Double
        /// Until the head of the response; nil before.
        package var firstByteMilliseconds: Double?
        /// Until its end, or until now.
        package var milliseconds: Double = 0
        /// The peers that gave bytes of it.
        package var peers: [String] = []
        /// Whether the digest of all bytes was verified.
        package var isVerified = false
        /// Why it was not received; nil when it was, or while it is.
        package var failure: String?
    }

    /// Counts the measurements since the start.
    package var number: Int
    /// The image.
    package var image: String
    /// When it began, in seconds since 1970.
    package var startedAt: Double
    /// Where it stands.
    package var phase = Phase.running
    /// Why it failed; nil unless it has.
    package var failure: String?
    /// How long it took, or has taken so far.
    package var milliseconds: Double = 0
    /// Peers that provide the image, at most ``PullMeasurement/providerLimit``.
    package var providers: [Provider] = []
    /// The pieces, in the order they were asked for.
    package var pieces: [Piece] = []
    /// Bytes received.
    package var bytes: Int64 = 0
}

/// Measures the pull of an image from the peers, whatever the local store holds: one at a time, and bounded.
///
/// It has a mirror engine of its own, whose traffic is not counted as saved. Bytes are verified and thrown away.
final class PullMeasurement: Sendable {
    /// The bounds of one measurement.
    struct Limits: Sendable {
        /// Longest time.
        var time: Duration = .seconds(60)
        /// Most bytes.
        var bytes: Int64 = 1 << 30
        /// Most manifests, configs and layers.
        var pieces = 128
    }

    /// Longest time of the lookup of providers.
    static let lookupLimit: Duration = .seconds(2)
    /// Most providers listed.
    static let providerLimit = 32
    /// Longest name of an image in bytes.
    static let nameLimit = 512

    /// Why a measurement does not start.
    enum Refusal: Error { case busy, ended }

    private struct State {
        var report: MeasurementReport?
        var task: Task<Void, Never>?
        var count = 0
        var hasEnded = false
    }

    private let configuration: MirrorConfiguration
    private let router: any PeerRouter
    private let eventLoopGroup: any EventLoopGroup
    private let logger: Logger
    private let limits: Limits
    private let state = NIOLockedValueBox(State())

    init(
        configuration: MirrorConfiguration, router: any PeerRouter, eventLoopGroup: any EventLoopGroup,
        limits: Limits = Limits(), logger: Logger
    ) {
        self.limits = limits
        self.configuration = configuration
        self.router = router
        self.eventLoopGroup = eventLoopGroup
        self.logger = logger
    }

    /// The measurement that runs, else the last one; nil before the first.
    var report: MeasurementReport? { state.withLockedValue { $0.report } }

    /// Starts a measurement.
    ///
    /// - Parameter head: the request that asks for it.
    func start(_ reference: Reference, head: RequestHead) throws(Refusal) {
        let isStarted = state.withLockedValue { state -> Result<Void, Refusal> in
            guard !state.hasEnded else { return .failure(.ended) }
            guard state.task == nil else { return .failure(.busy) }
            state.count += 1
            state.report = MeasurementReport(
                number: state.count, image: "\(reference)", startedAt: Date().timeIntervalSince1970)
            state.task = Task { await self.run(reference, head) }
            return .success(())
        }
        try isStarted.get()
    }

    /// Cancels the measurement that runs, if any.
    func cancel() { state.withLockedValue { $0.task }?.cancel() }

    /// Cancels the measurement that runs, waits for its end, and starts none any more.
    func shutdown() async {
        let task = state.withLockedValue { state in
            state.hasEnded = true
            return state.task
        }
        task?.cancel()
        await task?.value
    }

    private func update(_ change: (inout MeasurementReport) -> Void) {
        state.withLockedValue { state in
            guard var report = state.report else { return }
            change(&report)
            state.report = report
        }
    }

    private func run(_ reference: Reference, _ head: RequestHead) async {
        let start = ContinuousClock.now
        let ledger = TrafficLedger()
        var configuration = self.configuration
        configuration.hashingThreads = 1
        let engine = MirrorEngine(
            configuration: configuration, router: router, store: nil, eventLoopGroup: eventLoopGroup,
            metrics: MirrorMetrics(factory: NOOPMetricsHandler.instance, router: "measurement", traffic: ledger),
            logger: logger)
        var phase = MeasurementReport.Phase.completed
        var failure: String?
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    let pull = MeasuredPull(
                        reference: reference, head: head, engine: engine, ledger: ledger, limits: self.limits,
                        eventLoop: self.eventLoopGroup.next(), start: start, update: self.update)
                    await pull.lookUp(self.router)
                    try await pull.run()
                }
                group.addTask {
                    try await Task.sleep(for: self.limits.time)
                    throw MeasurementFailure("not complete after \(self.limits.time)")
                }
                defer { group.cancelAll() }
                try await group.next()
            }
        } catch let error as MeasurementFailure {
            (phase, failure) = (.failed, error.description)
        } catch {
            (phase, failure) = (.failed, "\(error)")
        }
        if Task.isCancelled { (phase, failure) = (.cancelled, nil) }
        await engine.shutdown()
        state.withLockedValue { state in
            state.report?.phase = phase
            state.report?.failure = failure
            state.report?.milliseconds = start.millisecondsToNow
            state.task = nil
        }
    }
}

struct MeasurementFailure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

extension ContinuousClock.Instant {
    fileprivate var millisecondsToNow: Double { (ContinuousClock.now - self) / .milliseconds(1) }
}

/// The lookup and the pieces of one measurement, one after the other.
private struct MeasuredPull {
    let reference: Reference
    let head: RequestHead
    let engine: MirrorEngine
    let ledger: TrafficLedger
    let limits: PullMeasurement.Limits
    let eventLoop: any EventLoop
    let start: ContinuousClock.Instant
    let update: @Sendable ((inout MeasurementReport) -> Void) -> Void

    /// Lists the providers until the lookup ends, or its time.
    func lookUp(_ router: any PeerRouter) async {
        guard let key = reference.digest?.description ?? reference.taggedName else { return }
        let lookupStart = ContinuousClock.now
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                for await peer in router.providers(for: key, limit: PullMeasurement.providerLimit) {
                    update {
                        $0.providers.append(
                            .init(
                                id: "\(peer.id)", addresses: peer.addresses.prefix(8).map { "\($0)" },
                                milliseconds: lookupStart.millisecondsToNow))
                    }
                }
            }
            group.addTask { try? await Task.sleep(for: PullMeasurement.lookupLimit) }
            await group.next()
            group.cancelAll()
        }
    }

    func run() async throws {
        let manifestReference: ManifestReference
        if let digest = reference.digest {
            manifestReference = .digest(digest)
        } else {
            manifestReference = .tag(reference.tag ?? "latest")
        }
        var manifest = try await manifest(manifestReference)
        // An index is followed once: to the first image for Linux, else to the first one.
        if case .index(let index) = manifest {
            let target = index.manifests.first { $0.platform?.os == "linux" } ?? index.manifests.first
            guard let target else { throw MeasurementFailure("the index is empty") }
            manifest = try await self.manifest(.digest(target.digest))
        }
        guard case .image(let image) = manifest else { throw MeasurementFailure("the index holds another index") }
        _ = try await piece("config", .blob(repository: reference.repository, image.config.digest))
        for layer in image.layers {
            _ = try await piece("layer", .blob(repository: reference.repository, layer.digest))
        }
    }

    private func manifest(_ manifest: ManifestReference) async throws -> Manifest {
        let bytes = try await piece("manifest", .manifest(repository: reference.repository, manifest))
        return try Manifest.decode(from: bytes.readableBytesView)
    }

    /// Fetches a piece.
    ///
    /// - Returns: its bytes if it is a manifest, else nothing.
    private func piece(_ kind: String, _ request: DistributionRequest.Kind) async throws -> ByteBuffer {
        try Task.checkCancellation()
        let request = DistributionRequest(kind: request, registry: reference.registry)
        let pieceStart = ContinuousClock.now
        let startMilliseconds = start.millisecondsToNow
        let (index, received) = add(
            .init(kind: kind, reference: request.digest?.description ?? request.tag ?? "", start: startMilliseconds))
        guard let index else { throw MeasurementFailure("more than \(limits.pieces) pieces") }
        let before = ledger.snapshot()
        let body = MeasuredBody(
            eventLoop: eventLoop, keepsBytes: kind == "manifest", byteLimit: limits.bytes - received
        ) { bytes, total, hasBegun in
            update {
                $0.bytes += bytes
                $0.pieces[index].bytes += bytes
                if let total { $0.pieces[index].totalBytes = total }
                if hasBegun { $0.pieces[index].firstByteMilliseconds = pieceStart.millisecondsToNow }
                $0.pieces[index].milliseconds = pieceStart.millisecondsToNow
                $0.milliseconds = start.millisecondsToNow
            }
        }
        let miss = MissRequest(distribution: request, isHead: false, range: nil, head: head, remoteAddress: nil)
        let result = await Task { await body.fetch(miss, from: engine) }.valueCancelling { body.cancel() }
        let after = ledger.snapshot()
        let taken = Dictionary(before.peers.map { ($0.id, $0.takenBytes) }) { $1 }
        let peers = after.peers.filter { $0.takenBytes > taken[$0.id] ?? 0 }.compactMap(\.id)
        let isVerified = after.total.savedBytes > before.total.savedBytes
        update {
            $0.pieces[index].milliseconds = pieceStart.millisecondsToNow
            $0.pieces[index].peers = peers
            switch result {
            case .success: $0.pieces[index].isVerified = isVerified
            case .failure(let failure): $0.pieces[index].failure = failure.description
            }
        }
        try Task.checkCancellation()
        do {
            return try result.get()
        } catch {
            throw MeasurementFailure("\(kind) \(request.digest?.description ?? request.tag ?? ""): \(error)")
        }
    }

    private func add(_ piece: MeasurementReport.Piece) -> (index: Int?, received: Int64) {
        let result = NIOLockedValueBox<(Int?, Int64)>((nil, 0))
        update { report in
            guard report.pieces.count < limits.pieces else { return }
            report.pieces.append(piece)
            result.withLockedValue { $0 = (report.pieces.count - 1, report.bytes) }
        }
        return result.withLockedValue { $0 }
    }
}

extension Task where Failure == Never {
    /// The value; `cancel` is called when the current task is cancelled.
    fileprivate func valueCancelling(_ cancel: @escaping @Sendable () -> Void) async -> Success {
        await withTaskCancellationHandler {
            await value
        } onCancel: {
            cancel()
        }
    }
}

/// Receives a response of the mirror engine in the place of a client: counts its bytes and drops them.
///
/// Confined to its event loop.
private final class MeasuredBody: ResponseWriter, @unchecked Sendable {
    typealias Progress = @Sendable (_ bytes: Int64, _ total: Int64?, _ hasBegun: Bool) -> Void

    let eventLoop: any EventLoop
    private(set) var isOpen = true
    private(set) var isHeadWritten = false
    var delegate: (any ResponseWriterDelegate)?
    private let keepsBytes: Bool
    private let byteLimit: Int64
    private let progress: Progress
    private let promise: EventLoopPromise<ByteBuffer>
    private var kept = ByteBuffer()
    private var remaining: Int64 = 0
    private var status = HTTPResponseStatus.ok
    private var isTooLarge = false
    private static let tooLarge = "larger than the limit of a measurement"

    init(eventLoop: any EventLoop, keepsBytes: Bool, byteLimit: Int64, progress: @escaping Progress) {
        self.eventLoop = eventLoop
        self.keepsBytes = keepsBytes
        self.byteLimit = keepsBytes ? min(byteLimit, Int64(Manifest.maximumSize)) : byteLimit
        self.progress = progress
        promise = eventLoop.makePromise()
    }

    func fetch(_ request: MissRequest, from engine: MirrorEngine) async -> Result<ByteBuffer, MeasurementFailure> {
        eventLoop.execute { if self.isOpen { engine.handleMiss(request, response: self) } }
        do {
            return .success(try await promise.futureResult.get())
        } catch {
            return .failure(error as? MeasurementFailure ?? MeasurementFailure("\(error)"))
        }
    }

    /// Ends as a client that disconnects. From any thread.
    func cancel() { eventLoop.execute { self.close("cancelled") } }

    private func close(_ reason: String) {
        guard isOpen else { return }
        let delegate = self.delegate
        end(.failure(MeasurementFailure(reason)))
        delegate?.responseWriterDidClose(self)
    }

    private func end(_ result: Result<ByteBuffer, MeasurementFailure>) {
        guard isOpen else { return }
        isOpen = false
        delegate = nil
        promise.completeWith(result.mapError { $0 as any Error })
    }

    var isWritable: Bool { isOpen && !isTooLarge }

    func writeHead(_ head: ResponseHead) {
        guard isOpen else { return }
        isHeadWritten = true
        status = head.status
        remaining = head.contentLength
        guard head.status == .ok else { return }
        progress(0, head.contentLength, true)
        guard head.contentLength > byteLimit else { return }
        isTooLarge = true
        // Later, as the engine is in the middle of its response; what it writes until then is dropped.
        eventLoop.execute { self.close(Self.tooLarge) }
    }

    func write(_ bytes: ByteBuffer) {
        guard isOpen else { return }
        remaining -= Int64(bytes.readableBytes)
        guard status == .ok, remaining >= 0, !isTooLarge else { return }
        if keepsBytes, kept.readableBytes + bytes.readableBytes <= Manifest.maximumSize {
            kept.writeImmutableBuffer(bytes)
        }
        progress(Int64(bytes.readableBytes), nil, false)
    }

    func flush() {}

    func finish() {
        guard status == .ok else { return end(.failure(MeasurementFailure("status \(status.code)"))) }
        guard !isTooLarge else { return end(.failure(MeasurementFailure(Self.tooLarge))) }
        guard remaining == 0 else { return end(.failure(MeasurementFailure("the body ended early"))) }
        end(.success(kept))
    }

    func abort(_ reason: String) { end(.failure(MeasurementFailure(reason))) }

    /// The engine has no content of a store.
    func send(_ head: ResponseHead, body: OpenContent.Body, range: Range<Int64>) {
        end(.failure(MeasurementFailure("unexpected content of a store")))
    }

    func whenWritable() -> EventLoopFuture<Void> {
        isOpen ? eventLoop.makeSucceededVoidFuture() : eventLoop.makeFailedFuture(ResponseClosed())
    }
}
