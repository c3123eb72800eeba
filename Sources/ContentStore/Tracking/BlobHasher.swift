import DequeModule
import Dispatch
import NIOConcurrencyHelpers
import OCIDistribution

/// Hashes blobs one after the other on a file thread. Used on the tracker's queue only.
final class BlobHasher: @unchecked Sendable {
    /// The file's state and digest; nil when there is no such file, or it changed while it was read.
    typealias Result = Swift.Result<HashedFile?, ContentStoreError>

    /// Receives each result, on the queue.
    var onResult: (Digest, Result) -> Void = { _, _ in }

    private let catalog: LayoutCatalog
    private let queue: DispatchQueue
    private let stopped: NIOLockedValueBox<Bool>
    private var waiting: Deque<Digest> = []
    private var pending: Set<Digest> = []
    private var isBusy = false

    /// Creates a hasher that ends early when `stopped` becomes true.
    init(catalog: LayoutCatalog, queue: DispatchQueue, stopped: NIOLockedValueBox<Bool>) {
        self.catalog = catalog
        self.queue = queue
        self.stopped = stopped
    }

    /// Adds a blob; `false` when it is waiting already.
    func add(_ digest: Digest) -> Bool {
        guard pending.insert(digest).inserted else { return false }
        waiting.append(digest)
        startNext()
        return true
    }

    private func startNext() {
        guard !isBusy, !stopped.withLockedValue({ $0 }), let digest = waiting.popFirst() else { return }
        isBusy = true
        let directory = catalog.directory(digest.algorithm)
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
        pending.remove(digest)
        onResult(digest, result)
        startNext()
    }
}
