import DequeModule
import HTTPServer
import Metrics
import NIOCore
import OCIDistribution

/// The body of a transfer on its way from peers to clients: which bytes come next, what of them is buffered and hashed,
/// and whether they come fast enough.
///
/// It takes part of the budget (a stream, and bytes when it is buffered whole) until ``end()``.
struct TransferBody {
    private(set) var plan: TransferPlan
    private let request: MissRequest
    private let isManifest: Bool
    private let context: MirrorContext
    private var buffer: VerificationBuffer?
    private var hasher: BackgroundHasher?
    private var progress: ProgressMonitor?
    /// Whether the peer is itself receiving what it sends, so that its rate is another's.
    private var isArriving = false
    /// The digest to verify against: the one asked for, or the one the peer states for a tag.
    private var digest: Digest?
    private var manifestType = MediaType.imageManifest.rawValue
    private var reservedBytes = 0
    private var isCounted = false

    /// Fewest bytes within the time that a request may wait, of a peer that is itself receiving.
    private static let arrivingBytes: Int64 = 16 * 1024

    init(_ request: MissRequest, isManifest: Bool, context: MirrorContext) {
        self.request = request
        self.isManifest = isManifest
        self.context = context
        digest = request.distribution.digest
        let isCurrent = Self.isCurrent(digest, request)
        plan = TransferPlan(
            wanted: isCurrent ? .whole : request.range.map { .range($0) } ?? .whole,
            expectation: .init(
                digest: digest, isManifest: isManifest, isHead: request.isHead || isCurrent,
                size: digest.flatMap { context.sizes.size(of: $0) }))
    }

    /// Whether the client has the content already (`If-None-Match`): then the head is enough.
    private static func isCurrent(_ digest: Digest?, _ request: MissRequest) -> Bool {
        guard let digest, let condition = request.head.fields["if-none-match"] else { return false }
        return EntityTag.ifNoneMatch(condition, names: digest)
    }

    /// The digest of the tag that was asked for is known.
    mutating func resolved(to digest: Digest) {
        self.digest = digest
        plan.resolved(
            to: digest, isHead: request.isHead || Self.isCurrent(digest, request),
            size: context.sizes.size(of: digest))
    }

    /// Whether the response is a head without a body.
    var isHeadOnly: Bool { plan.expectation.isHead }

    // MARK: Receiving

    /// Whether a response was accepted since the start or restart.
    var hasBegun: Bool { plan.range != nil }
    /// Whether the whole body is buffered until it is verified, so that its receipt does not wait for clients.
    var isBufferedWhole: Bool { buffer?.mode == .all }
    /// Whether the hasher is behind: more is to be read only when it has caught up. Less than a batch waits for more bytes
    /// before it is hashed.
    var isHashingBehind: Bool {
        (hasher?.pendingBytes ?? 0) > max(2 * context.memory.chunkBytes, BackgroundHasher.batchBytes)
    }

    /// Continues with an accepted response. The first one decides how much is buffered.
    ///
    /// - Parameters:
    ///   - isArriving: whether the peer is itself receiving what it sends.
    ///   - now: the time of the transfer's clock.
    ///   - onHashed: called on the event loop when the hasher has caught up by a batch.
    mutating func begin(
        _ acceptance: TransferPlan.Acceptance, contentType: String?, isArriving: Bool, now: NIODeadline,
        on eventLoop: any EventLoop,
        onHashed: @escaping @Sendable () -> Void
    ) {
        plan.begin(acceptance)
        digest = acceptance.digest
        if isManifest, let contentType { manifestType = MediaType(statedManifestType: contentType).rawValue }
        guard !isHeadOnly else { return }
        self.isArriving = isArriving
        progress = ProgressMonitor(limits: progressLimits, now: now)
        guard buffer == nil else { return }
        let length = plan.length
        let mode = bufferMode(length)
        buffer = VerificationBuffer(mode: mode, length: length)
        // A small body is hashed at once where it is; a large one on other threads while it is received.
        if mode != .nothing, length > BackgroundHasher.batchBytes {
            hasher = BackgroundHasher(
                expected: acceptance.digest, size: length, pool: context.hashing, eventLoop: eventLoop,
                onProgress: onHashed)
        }
        countStream()
    }

    private var progressLimits: ProgressMonitor.Limits {
        let peers = context.configuration.peers
        guard isArriving, let wait = context.coldStart?.configuration.wait else {
            return .init(
                slowWindow: TimeAmount(peers.slowBodyWindow), stallWindow: TimeAmount(peers.progressTimeout),
                stallBytes: Int64(peers.progressBytes))
        }
        // No other peer has more, so slowness is no reason to ask one.
        return .init(slowWindow: .hours(1), stallWindow: TimeAmount(wait), stallBytes: Self.arrivingBytes)
    }

    private mutating func bufferMode(_ length: Int64) -> VerificationBuffer.Mode {
        let configuration = context.configuration
        guard configuration.verification == .on, plan.coversWhole else { return .nothing }
        // An empty body is complete with its head, so that it is always buffered.
        guard length <= Int64(configuration.bufferedContentBytes),
            length == 0 || context.memory.buffered.reserve(Int(length))
        else { return .tail(Int64(configuration.unverifiedTailBytes)) }
        reservedBytes = Int(length)
        return .all
    }

    /// Receives bytes of the response.
    ///
    /// - Returns: what may be sent to the clients now.
    mutating func receive(_ bytes: ByteBuffer) -> ByteBuffer? {
        progress?.received(bytes.readableBytes)
        var bytes = bytes
        let (skip, count) = plan.received(bytes.readableBytes)
        bytes.moveReaderIndex(forwardBy: skip)
        guard count > 0, let part = bytes.readSlice(length: count)?.withoutSpareStorage() else { return nil }
        hasher?.append(part)
        return buffer?.append(part)
    }

    // MARK: Progress

    /// When to call ``judgeProgress(now:_:)`` next; nil while no bytes are expected.
    var progressDeadline: NIODeadline? { progress?.deadline }

    /// Whether the peer sends enough.
    mutating func judgeProgress(now: NIODeadline, _ throughput: inout ThroughputEstimator) -> ProgressMonitor.Verdict {
        let (rate, expected) = (progress?.rate(now: now), throughput.expectedRate(now: now))
        let verdict = progress?.judge(now: now, expectedRate: expected) ?? .sufficient
        if verdict == .sufficient, !isArriving, let rate { throughput.record(rate, now: now) }
        return verdict
    }

    /// Bytes are expected from now on, or not while clients or the hasher are behind.
    mutating func expectBytes(_ expects: Bool, now: NIODeadline) {
        if expects { progress?.resume(now: now) } else { progress?.pause() }
    }

    /// The response has ended, complete or not.
    mutating func responseEnded(now: NIODeadline, _ throughput: inout ThroughputEstimator) {
        if plan.isComplete, !isArriving, let rate = progress?.rate(now: now) { throughput.record(rate, now: now) }
        progress = nil
    }

    // MARK: Verification

    /// Whether the complete body is to be verified.
    var needsVerification: Bool { buffer.map { $0.mode != .nothing } ?? false }
    /// What is counted when it is not: no verification is wanted, or a part of the content cannot be verified.
    var unverifiedResult: MirrorMetrics.Verification { plan.coversWhole ? .off : .partial }

    /// Verifies the complete body. `completion` is called on the event loop, now or later, unless the body is discarded
    /// before.
    func verify(_ completion: @escaping @Sendable (Result<Void, VerificationError>) -> Void) {
        if let hasher { return hasher.finish(completion) }
        guard let buffer, let digest else { return completion(.success(())) }
        var verifier = DigestVerifier(expected: digest, size: plan.total)
        do throws(VerificationError) {
            for chunk in buffer.chunks { try verifier.update(chunk.readableBytesView) }
            try verifier.finish()
        } catch {
            return completion(.failure(error))
        }
        completion(.success(()))
    }

    /// The body is verified, or needs no verification.
    ///
    /// - Returns: what is still buffered, in order.
    mutating func release(_ types: inout ManifestTypeCache) -> Deque<ByteBuffer> {
        let chunks = buffer?.release() ?? []
        if isManifest, isBufferedWhole, let digest {
            manifestType = types.type(of: digest, chunks) ?? manifestType
            // Decoded once for each manifest, as long as its type is cached.
            if needsVerification, let json = types.takeNew() { context.sizes.record(manifest: json.readableBytesView) }
        }
        return chunks
    }

    // MARK: Response

    /// The head of the response to the clients.
    var responseHead: ResponseHead {
        var head = ResponseHead(.ok, contentLength: plan.length)
        head.digest = digest
        head.namespace = request.distribution.registry
        head.acceptsRanges = !isManifest
        head.contentType = isManifest ? manifestType : MediaType.octetStream.rawValue
        if case .range = plan.wanted, let range = plan.range {
            head.status = .partialContent
            head.contentRange = .satisfied(range, size: plan.total)
        }
        if Self.isCurrent(digest, request) { head.status = .notModified }
        return head
    }

    // MARK: Restart, fork, end

    /// Drops everything received, for a new start from the first byte.
    mutating func restart() {
        discard()
        plan.restart()
        digest = plan.expectation.digest
    }

    /// The state of this body for another client that has received the same bytes, and continues on its own.
    func fork(onHashed: @escaping @Sendable () -> Void) -> TransferBody {
        var copy = self
        copy.hasher = hasher?.fork(onProgress: onHashed)
        copy.progress = nil
        // The budget is that of the original.
        copy.reservedBytes = 0
        copy.isCounted = false
        copy.countStream()
        return copy
    }

    private mutating func countStream() {
        guard !isCounted else { return }
        isCounted = true
        context.memory.beginStream()
        context.metrics.activeTransfers.increment()
    }

    private mutating func discard() {
        hasher?.cancel()
        hasher = nil
        buffer = nil
        progress = nil
        context.memory.buffered.release(reservedBytes)
        reservedBytes = 0
    }

    /// Drops everything and returns the budget.
    mutating func end() {
        discard()
        guard isCounted else { return }
        isCounted = false
        context.memory.endStream()
        context.metrics.activeTransfers.decrement()
    }
}

/// The media types of manifests that were detected lately: what a digest stands for does not change.
struct ManifestTypeCache {
    /// Most types kept; beyond it the cache is emptied.
    static let limit = 1024

    private var types: [Digest: String] = [:]
    /// The manifest whose type was detected last, until it is taken.
    private var new: ByteBuffer?

    /// Takes the media type from the verified bytes, not from the peer's header; nil if the bytes do not tell.
    mutating func type(of digest: Digest, _ chunks: Deque<ByteBuffer>) -> String? {
        if let type = types[digest] { return type }
        guard var whole = chunks.first else { return nil }
        for chunk in chunks.dropFirst() { whole.writeImmutableBuffer(chunk) }
        guard let type = MediaType.detect(manifestJSON: whole.readableBytesView)?.rawValue else { return nil }
        if types.count >= Self.limit { types.removeAll(keepingCapacity: true) }
        types[digest] = type
        new = whole
        return type
    }

    /// The manifest whose type has just been detected, once.
    mutating func takeNew() -> ByteBuffer? {
        defer { new = nil }
        return new
    }
}
