import DequeModule
import Dispatch
import NIOConcurrencyHelpers
import OCIDistribution

/// Hashes blobs that are in doubt, one after the other, on a file thread. Used on the tracker's queue only.
final class BlobChecker: @unchecked Sendable {
    typealias Result = Swift.Result<HashedFile?, ContentStoreError>

    private let queue: DispatchQueue
    private let stopped: NIOLockedValueBox<Bool>
    private var waiting: Deque<Digest> = []
    private var known: Set<Digest> = []
    private var isBusy = false

    /// Finds the directory a blob is in.
    var directory: (Digest) -> Directory? = { _ in nil }
    /// Gets what was found; called on the queue.
    var report: (Digest, Result) -> Void = { _, _ in }

    /// Creates a checker that ends early when `stopped` becomes true.
    init(queue: DispatchQueue, stopped: NIOLockedValueBox<Bool>) {
        self.queue = queue
        self.stopped = stopped
    }

    /// Adds a blob; `false` when it is waiting already.
    func add(_ digest: Digest) -> Bool {
        guard known.insert(digest).inserted else { return false }
        waiting.append(digest)
        next()
        return true
    }

    private func next() {
        guard !isBusy, !stopped.withLockedValue({ $0 }), let digest = waiting.popFirst() else { return }
        isBusy = true
        let directory = directory(digest)
        FileWork.submit { [weak self, stopped, queue] in
            let result: Result
            do throws(ContentStoreError) {
                let file = try directory?.openFile(digest.hex)
                result = .success(
                    try file?.hash(digest.algorithm) { (_) throws(ContentStoreError) in
                        if stopped.withLockedValue({ $0 }) { throw .closed }
                    })
            } catch {
                result = .failure(error)
            }
            queue.async { [weak self] in self?.finish(digest, result) }
        }
    }

    private func finish(_ digest: Digest, _ result: Result) {
        isBusy = false
        known.remove(digest)
        report(digest, result)
        next()
    }
}
