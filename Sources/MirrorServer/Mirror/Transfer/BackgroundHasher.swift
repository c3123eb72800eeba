import DequeModule
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import OCIDistribution

/// The threads that hash bodies, shared by all transfers of an engine.
final class HashingThreadPool: Sendable {
    let threads: NIOThreadPool

    /// - Parameter threads: how many bodies are hashed at the same time.
    init(threads count: Int) {
        threads = NIOThreadPool(numberOfThreads: max(1, count))
        threads.start()
    }

    deinit {
        threads.shutdownGracefully { _ in }
    }
}

/// Hashes the chunks of one body in order, on the threads of a ``HashingThreadPool``.
///
/// It retains what was appended and is not yet hashed. The caller bounds that by not reading on while ``pendingBytes`` is
/// large; `onProgress` is called on the event loop when it has become less.
final class BackgroundHasher: @unchecked Sendable {
    /// Bytes that are worth a switch to another thread. Fewer wait for more or for the end.
    static let batchBytes = 64 * 1024

    private struct State: ~Copyable {
        var verifier: DigestVerifier?
        var chunks: Deque<ByteBuffer> = []
        var pending = 0
        var isRunning = false
        var isEnding = false
        var isCancelled = false
        var completion: (@Sendable (Result<Void, VerificationError>) -> Void)?
        /// Forks that continue from the batch that is being hashed now.
        var forks: [BackgroundHasher] = []
    }

    /// Not `Mutex`, which takes a priority-inheriting futex that ThreadSanitizer cannot follow.
    private let lock = NIOLock()
    /// Used with the lock held.
    private var state: State
    private let pool: HashingThreadPool
    private let eventLoop: any EventLoop
    private let onProgress: @Sendable () -> Void

    /// - Parameter onProgress: called on `eventLoop` after chunks were hashed.
    init(
        expected: Digest, size: Int64, pool: HashingThreadPool, eventLoop: any EventLoop,
        onProgress: @escaping @Sendable () -> Void
    ) {
        state = State(verifier: DigestVerifier(expected: expected, size: size))
        self.pool = pool
        self.eventLoop = eventLoop
        self.onProgress = onProgress
    }

    private init(
        continuing state: consuming State, of parent: BackgroundHasher, onProgress: @escaping @Sendable () -> Void
    ) {
        self.state = state
        pool = parent.pool
        eventLoop = parent.eventLoop
        self.onProgress = onProgress
    }

    /// A hasher for another body that has the same bytes up to now; it receives its further bytes on its own.
    func fork(onProgress: @escaping @Sendable () -> Void) -> BackgroundHasher {
        withState { state in
            var copy = State(chunks: state.chunks, pending: state.pending)
            if let verifier = state.verifier.take() {
                copy.verifier = verifier.copy()
                state.verifier = consume verifier
                return BackgroundHasher(continuing: copy, of: self, onProgress: onProgress)
            }
            // A batch is being hashed: its end hands the copy the state of the hash.
            copy.isRunning = true
            let fork = BackgroundHasher(continuing: copy, of: self, onProgress: onProgress)
            state.forks.append(fork)
            return fork
        }
    }

    /// Bytes appended and not yet hashed.
    var pendingBytes: Int { withState { $0.pending } }

    /// Adds a chunk.
    func append(_ chunk: ByteBuffer) {
        let start = withState { state -> Bool in
            guard !state.isCancelled else { return false }
            state.chunks.append(chunk)
            state.pending += chunk.readableBytes
            guard !state.isRunning, state.pending >= Self.batchBytes else { return false }
            state.isRunning = true
            return true
        }
        if start { submit() }
    }

    /// Ends the body. `completion` is called on the event loop, unless the hasher is cancelled before.
    func finish(_ completion: @escaping @Sendable (Result<Void, VerificationError>) -> Void) {
        let start = withState { state -> Bool in
            guard !state.isCancelled, !state.isEnding else { return false }
            state.isEnding = true
            state.completion = completion
            guard !state.isRunning else { return false }
            state.isRunning = true
            return true
        }
        if start { submit() }
    }

    /// Drops what is not hashed yet; nothing is called any more.
    func cancel() {
        let dropped = withState { state -> Deque<ByteBuffer> in
            state.isCancelled = true
            state.completion = nil
            state.pending = 0
            defer { state.chunks = [] }
            return state.chunks
        }
        _ = dropped
    }

    private func withState<Value>(_ body: (inout State) -> Value) -> Value {
        lock.lock()
        defer { lock.unlock() }
        return body(&state)
    }

    private func submit() {
        pool.threads.submit { state in
            guard case .active = state else { return }
            self.hashBatch()
        }
    }

    /// Hashes all pending chunks as one batch. Chunks appended meanwhile wait for the next batch, so that bodies take turns
    /// on the threads.
    private func hashBatch() {
        // The verifier is taken out, so that the lock is not held while it hashes; only one batch runs at a time.
        var taken: DigestVerifier?
        let chunks = withState { state -> Deque<ByteBuffer> in
            taken = state.verifier.take()
            defer { state.chunks = [] }
            return state.chunks
        }
        guard var verifier = taken.take() else { return }
        var hashed = 0
        var failure: VerificationError?
        for chunk in chunks where failure == nil {
            let result: Result<Void, VerificationError> = chunk.withUnsafeReadableBytes { raw in
                do throws(VerificationError) { return .success(try verifier.update(raw)) } catch {
                    return .failure(error)
                }
            }
            if case .failure(let error) = result { failure = error }
            hashed += chunk.readableBytes
        }
        finishBatch(verifier, hashed: hashed, failure: failure)
    }

    private enum Next { case again, idle, done(@Sendable (Result<Void, VerificationError>) -> Void) }

    /// Takes the result of a batch: of this hasher, or of the one it was forked from during the batch.
    private func finishBatch(_ verifier: consuming DigestVerifier, hashed: Int, failure: VerificationError?) {
        var mine: DigestVerifier? = consume verifier
        let next = withState { state -> Next in
            if !state.forks.isEmpty, let verifier = mine.take() {
                // With the lock held, so that no fork is made between the last of these and the verifier's return.
                for fork in state.forks { fork.finishBatch(verifier.copy(), hashed: hashed, failure: failure) }
                state.forks = []
                mine = consume verifier
            }
            state.pending = max(0, state.pending - hashed)
            if state.isCancelled { return .idle }
            if failure != nil || (state.isEnding && state.chunks.isEmpty) {
                guard let completion = state.completion else {
                    // Failed before the end of the body, which reports it.
                    state.isRunning = false
                    state.verifier = mine.take()
                    return .idle
                }
                state.completion = nil
                return .done(completion)
            }
            state.verifier = mine.take()
            if state.pending >= Self.batchBytes || state.isEnding { return .again }
            state.isRunning = false
            return .idle
        }
        switch next {
        case .again:
            eventLoop.execute(onProgress)
            submit()
        case .idle:
            eventLoop.execute(onProgress)
        case .done(let completion):
            let result: Result<Void, VerificationError>
            if let failure {
                result = .failure(failure)
            } else if let verifier = mine.take() {
                do throws(VerificationError) {
                    try verifier.finish()
                    result = .success(())
                } catch {
                    result = .failure(error)
                }
            } else {
                return
            }
            eventLoop.execute { completion(result) }
        }
    }
}
