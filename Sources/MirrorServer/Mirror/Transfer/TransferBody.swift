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
    /// The digest to verify against: the one asked for, or the one the peer states for a tag.
    private var digest: Digest?
    private var manifestType = MediaType.imageManifest.rawValue
    private var reservedBytes = 0
    private var isCounted = false

    init(_ request: MissRequest, isManifest: Bool, context: MirrorContext) {
        self.request = request
        self.isManifest = isManifest
        self.context = context
        digest = request.distribution.digest
        plan = TransferPlan(
            wanted: request.range.map { .range($0) } ?? .whole,
            expectation: .init(
                digest: request.distribution.digest, isManifest: isManifest, isHead: request.isHead))
    }

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
    ///   - now: the time of the transfer's clock.
    ///   - onHashed: called on the event loop when the hasher has caught up by a batch.
    mutating func begin(
        _ acceptance: TransferPlan.Acceptance, contentType: String?, now: NIODeadline, on eventLoop: any EventLoop,
        onHashed: @escaping @Sendable () -> Void
    ) {
        plan.begin(acceptance)
        digest = acceptance.digest
        if isManifest, let contentType { manifestType = MediaType(statedManifestType: contentType).rawValue }
        guard !request.isHead else { return }
        progress = ProgressMonitor(
            window: TimeAmount(context.configuration.peers.progressTimeout),
            minimum: Int64(context.configuration.peers.progressBytes), now: now)
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
        context.metrics.receivedBytes.increment(by: bytes.readableBytes)
        var bytes = bytes
        let (skip, count) = plan.received(bytes.readableBytes)
        bytes.moveReaderIndex(forwardBy: skip)
        guard count > 0, let part = bytes.readSlice(length: count)?.withoutSpareStorage() else { return nil }
        hasher?.append(part)
        return buffer?.append(part)
    }

    // MARK: Progress

    /// When to call ``hasStalled(now:)`` next; nil while no bytes are expected.
    var progressDeadline: NIODeadline? { progress?.deadline }

    /// Whether the peer sends too little.
    mutating func hasStalled(now: NIODeadline) -> Bool { progress?.hasStalled(now: now) ?? false }

    /// Bytes are expected from now on, or not while clients or the hasher are behind.
    mutating func expectBytes(_ expects: Bool, now: NIODeadline) {
        if expects { progress?.resume(now: now) } else { progress?.pause() }
    }

    /// The response has ended, complete or not.
    mutating func responseEnded() { progress = nil }

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
        if isManifest, isBufferedWhole, let digest { manifestType = types.type(of: digest, chunks) ?? manifestType }
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
        return head
    }

    // MARK: Restart, fork, end

    /// Drops everything received, for a new start from the first byte.
    mutating func restart() {
        discard()
        plan.restart()
        digest = request.distribution.digest
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

/// Detects a peer that sends nothing, or so little that the body would never end.
///
/// Time counts only while bytes are expected: a slow client is not the peer's failure.
struct ProgressMonitor: Sendable {
    /// The time within which ``minimum`` bytes must come.
    let window: TimeAmount
    /// Fewest bytes of a window. The end of the body may come with fewer.
    let minimum: Int64

    private var windowStart: NIODeadline
    private var bytes: Int64 = 0
    private var isPaused = false

    init(window: TimeAmount, minimum: Int64, now: NIODeadline) {
        self.window = window
        self.minimum = minimum
        windowStart = now
    }

    /// When to call ``hasStalled(now:)`` next; nil while paused.
    var deadline: NIODeadline? { isPaused ? nil : windowStart + window }

    /// Bytes were received.
    mutating func received(_ count: Int) {
        bytes += Int64(count)
    }

    /// No bytes are expected for now.
    mutating func pause() {
        isPaused = true
    }

    /// Bytes are expected again; a new window begins after a pause.
    mutating func resume(now: NIODeadline) {
        guard isPaused else { return }
        isPaused = false
        windowStart = now
        bytes = 0
    }

    /// Whether the peer has stalled. Otherwise a window that is over is followed by a new one.
    mutating func hasStalled(now: NIODeadline) -> Bool {
        guard !isPaused, now >= windowStart + window else { return false }
        if bytes < max(minimum, 1) { return true }
        windowStart = now
        bytes = 0
        return false
    }
}

/// The media types of manifests that were detected lately: what a digest stands for does not change.
struct ManifestTypeCache {
    /// Most types kept; beyond it the cache is emptied.
    static let limit = 1024

    private var types: [Digest: String] = [:]

    /// Takes the media type from the verified bytes, not from the peer's header; nil if the bytes do not tell.
    mutating func type(of digest: Digest, _ chunks: Deque<ByteBuffer>) -> String? {
        if let type = types[digest] { return type }
        guard var whole = chunks.first else { return nil }
        for chunk in chunks.dropFirst() { whole.writeImmutableBuffer(chunk) }
        guard let type = MediaType.detect(manifestJSON: whole.readableBytesView)?.rawValue else { return nil }
        if types.count >= Self.limit { types.removeAll(keepingCapacity: true) }
        types[digest] = type
        return type
    }
}
