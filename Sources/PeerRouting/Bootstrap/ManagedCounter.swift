import Synchronization

/// Counts what is in use, up to a limit.
final class ManagedCounter: Sendable {
    private let limit: Int
    private let count = Mutex(0)

    init(limit: Int) {
        self.limit = limit
    }

    /// Takes one; false when none is left.
    func increment() -> Bool {
        count.withLock { count in
            guard count < limit else { return false }
            count += 1
            return true
        }
    }

    /// Gives one back.
    func decrement() {
        count.withLock { $0 -= 1 }
    }
}
