import Synchronization

/// A bound on bytes held for peers by the whole node, shared by all connections.
final class MemoryBudget: Sendable {
    let limit: Int
    private let used = Atomic<Int>(0)

    init(limit: Int) {
        self.limit = limit
    }

    var bytesInUse: Int { used.load(ordering: .relaxed) }

    /// False, and nothing taken, when the bound would be passed.
    func reserve(_ count: Int) -> Bool {
        // Not added first and taken back: another connection would meanwhile be refused what there is room for.
        var current = used.load(ordering: .relaxed)
        while current + count <= limit {
            let (exchanged, original) = used.weakCompareExchange(
                expected: current, desired: current + count, ordering: .relaxed)
            if exchanged { return true }
            current = original
        }
        return false
    }

    func release(_ count: Int) {
        used.subtract(count, ordering: .relaxed)
    }
}
