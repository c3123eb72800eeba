#if Containerd
    import OCIDistribution

    /// What must be looked at again. A value without I/O; signals for one thing coalesce.
    struct PendingWork: Sendable {
        /// Beyond so many names or digests a whole reconciliation is cheaper, and bounds the memory.
        static let imageLimit = 4096
        static let contentLimit = 16384
        /// Content that containerd does not know yet is asked for again after 20, 40, 80 … milliseconds, so many times:
        /// the file of a blob appears before the transaction that makes it known ends. So is content without a source.
        static let attemptLimit = 7

        private(set) var images: Set<String> = []
        /// Digests, and how many times each was asked for in vain.
        private(set) var contents: [Digest: Int] = [:]
        private(set) var needsReconciliation = false
        private var retries: [Digest: Retry] = [:]

        private struct Retry: Sendable {
            var attempts: Int
            var due: ContinuousClock.Instant
        }

        /// Whether there is nothing to do now.
        var isEmpty: Bool { images.isEmpty && contents.isEmpty && !needsReconciliation }

        /// Whether nothing is left, now or later.
        var isIdle: Bool { isEmpty && retries.isEmpty }

        /// When the next retry is due.
        var nextDue: ContinuousClock.Instant? { retries.values.map(\.due).min() }

        mutating func add(image name: String) {
            guard images.count < Self.imageLimit || images.contains(name) else { return reconcile() }
            images.insert(name)
        }

        /// - Parameter mayAppear: whether content that is unknown is asked for again.
        mutating func add(content digest: Digest, mayAppear: Bool) {
            guard contents.count < Self.contentLimit || contents[digest] != nil else { return reconcile() }
            retries[digest] = nil
            contents[digest] = mayAppear ? 0 : Self.attemptLimit
        }

        mutating func reconcile() {
            needsReconciliation = true
            // Everything is looked at anyway.
            images = []
            contents = contents.filter { $0.value < Self.attemptLimit }
            if contents.count >= Self.contentLimit { contents = [:] }
        }

        /// Asks again later for content that was asked for in vain `attempts` times before.
        mutating func retry(_ digest: Digest, attempts: Int, now: ContinuousClock.Instant) {
            guard attempts < Self.attemptLimit, contents[digest] == nil, retries.count < Self.contentLimit else {
                return
            }
            retries[digest] = Retry(attempts: attempts + 1, due: now + .milliseconds(20 << attempts))
        }

        /// Takes what is to be done now.
        mutating func take(now: ContinuousClock.Instant) -> PendingWork {
            for (digest, retry) in retries where retry.due <= now {
                retries[digest] = nil
                contents[digest] = retry.attempts
            }
            var work = PendingWork()
            swap(&work.images, &images)
            swap(&work.contents, &contents)
            swap(&work.needsReconciliation, &needsReconciliation)
            return work
        }
    }
#endif
