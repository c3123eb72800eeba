#if Containerd
    import ContentStore
    import NIOConcurrencyHelpers

    /// Counts the writers at work.
    final class WriterLimit: Sendable {
        /// The right of one writer to be at work; given back when it is released.
        final class Permit: Sendable {
            private let limit: WriterLimit

            fileprivate init(limit: WriterLimit) { self.limit = limit }

            deinit { limit.count.withLockedValue { $0 -= 1 } }
        }

        private let limit: Int
        private let count = NIOLockedValueBox(0)

        init(limit: Int) { self.limit = max(1, limit) }

        func acquire() throws(ContentStoreError) -> Permit {
            let granted = count.withLockedValue { count in
                guard count < limit else { return false }
                count += 1
                return true
            }
            guard granted else { throw .tooManyWriters(limit: limit) }
            return Permit(limit: self)
        }
    }
#endif
