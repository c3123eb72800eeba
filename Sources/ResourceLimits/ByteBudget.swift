import Synchronization

/// A limit on bytes that are held together by all users of one resource, such as the connections of a host. May be used
/// from any thread.
package final class ByteBudget: Sendable {
    /// Bytes that may be reserved in all.
    package let limit: Int
    private let used = Atomic<Int>(0)

    package init(limit: Int) {
        self.limit = limit
    }

    /// Bytes reserved now.
    package var bytesInUse: Int { used.load(ordering: .relaxed) }

    /// Reserves bytes, to be given back with ``release(_:)``.
    ///
    /// - Returns: False, with nothing reserved, when the limit would be passed.
    package func reserve(_ count: Int) -> Bool {
        // Not added first and taken back: another user would meanwhile be refused what there is room for.
        var current = used.load(ordering: .relaxed)
        while current + count <= limit {
            let (exchanged, original) = used.weakCompareExchange(
                expected: current, desired: current + count, ordering: .relaxed)
            if exchanged { return true }
            current = original
        }
        return false
    }

    /// Gives back what ``reserve(_:)`` took.
    package func release(_ count: Int) {
        used.subtract(count, ordering: .relaxed)
    }
}
