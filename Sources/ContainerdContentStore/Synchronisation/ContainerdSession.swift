import ContentStore
import GRPCCore
import Logging
import NIOConcurrencyHelpers
import NIOPosix
import OCIDistribution

/// One connection to containerd, and the tasks that keep the index current while it lasts.
///
/// Events, the blob watcher, timers and writers only add what must be checked again (``PendingWork``). One task makes the
/// checks and changes the index, so that the last state seen of a name or of content is the one in the index.
final class ContainerdSession: Sendable {
    /// The times of listings after a name was removed or changed: garbage collection may remove content any time later
    /// without an event. They also cover the moment before a new subscription takes effect.
    private static let followUpDelays: [Duration] = [.milliseconds(500), .seconds(2), .seconds(10), .seconds(60)]
    /// The interval at which ingests are listed when neither events nor a watch report committed content.
    private static let ingestPollInterval: Duration = .milliseconds(500)

    private struct Queue {
        var work = PendingWork()
        /// Resumed when the work that was added before them is done.
        var completions: [CheckedContinuation<Void, any Error>] = []
        var wakeAt: ContinuousClock.Instant?
        var followUpGeneration = 0
        var end: ContentStoreError?
    }

    let client: ContainerdClient
    let state: ContainerdState
    private let queue = NIOLockedValueBox(Queue())
    private let wakeUps: AsyncStream<Void>
    private let wakeUp: AsyncStream<Void>.Continuation
    private let followUps: AsyncStream<Void>
    private let followUp: AsyncStream<Void>.Continuation

    init(client: ContainerdClient, state: ContainerdState) {
        self.client = client
        self.state = state
        (wakeUps, wakeUp) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        (followUps, followUp) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    // MARK: Adding work

    private func enqueue(_ change: (inout PendingWork) -> Void) {
        queue.withLockedValue { change(&$0.work) }
        wakeUp.yield()
    }

    /// Checks names and content again, and waits until the index is current.
    ///
    /// - Throws: ``ContentStoreError/unavailable(_:)`` when the connection ends before.
    func refresh(images: [String] = [], contents: [Digest] = []) async throws {
        try await withCheckedThrowingContinuation { continuation in
            let end = queue.withLockedValue { queue -> ContentStoreError? in
                if let end = queue.end { return end }
                for name in images { queue.work.add(image: name) }
                for digest in contents { queue.work.add(content: digest, mayAppear: false) }
                queue.completions.append(continuation)
                return nil
            }
            if let end { continuation.resume(throwing: end) }
            wakeUp.yield()
        }
    }

    /// Checks content again, because it could not be read as expected.
    func recheck(_ digest: Digest) { enqueue { $0.add(content: digest, mayAppear: false) } }

    private func handle(_ event: ContainerdEvent) {
        switch event {
        case .imageChanged(let name):
            enqueue { $0.add(image: name) }
        case .imageRemoved(let name):
            enqueue { $0.add(image: name) }
            restartFollowUps()
        case .contentCreated(let digest):
            if let digest = Digest(digest) { enqueue { $0.add(content: digest, mayAppear: true) } }
        case .contentRemoved(let digest):
            if let digest = Digest(digest) { enqueue { $0.add(content: digest, mayAppear: false) } }
        case .unreadable(let topic):
            state.logger.warning("containerd sent an event that cannot be parsed", metadata: ["topic": "\(topic)"])
            enqueue { $0.reconcile() }
        }
    }

    private func handle(_ event: BlobWatcherEvent, _ watcher: CurrentWatcher, _ attempt: CurrentWatcher.Attempt) {
        switch event {
        case .appeared(let digest): enqueue { $0.add(content: digest, mayAppear: true) }
        case .disappeared(let digest): enqueue { $0.add(content: digest, mayAppear: false) }
        case .missed: enqueue { $0.reconcile() }
        case .ended(let reason):
            // The listing finds missed changes, and another attempt to watch follows it.
            if watchingFailed(reason, watcher, attempt) { enqueue { $0.reconcile() } }
        }
    }

    /// Returns whether no watch is active since then.
    private func watchingFailed(
        _ reason: String, _ watcher: CurrentWatcher, _ attempt: CurrentWatcher.Attempt
    ) -> Bool {
        let (isCurrent, shouldLog) = watcher.end(attempt, reason: reason)
        if shouldLog {
            state.logger.warning(
                "cannot watch containerd's directory of blobs; polling instead",
                metadata: ["error": "\(reason)"])
        }
        return isCurrent
    }

    private func restartFollowUps() {
        queue.withLockedValue { $0.followUpGeneration &+= 1 }
        followUp.yield()
    }

    // MARK: Lifetime of the connection

    /// Connects, keeps the index current, and throws when the connection is lost.
    ///
    /// - Parameter failedAfterConnect: whether the last connection failed before everything was listed; this one is logged
    ///   at debug level then.
    func run(failedAfterConnect: Bool) async throws {
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                defer { group.cancelAll() }
                group.addTask {
                    try await self.client.run()
                    throw ContentStoreError.unavailable("the connection to containerd ended")
                }
                group.addTask { try await self.synchronise(failedAfterConnect: failedAfterConnect) }
                try await group.next()
            }
        } catch {
            let reason = ContentStoreError(containerd: error)
            finish(reason)
            throw reason
        }
        finish(.closed)
    }

    private func finish(_ reason: ContentStoreError) {
        let completions = queue.withLockedValue { queue in
            queue.end = reason
            defer { queue.completions = [] }
            return queue.completions
        }
        completions.forEach { $0.resume(throwing: reason) }
    }

    private func synchronise(failedAfterConnect: Bool) async throws {
        let version = try await client.version()
        guard version.isSupported else {
            throw ContentStoreError.unavailable(
                "containerd \(version) is too old; version 1.6 or later is needed")
        }
        let reported = try? await client.contentRoot()
        let synchroniser = Synchroniser(client: client, state: state, reportedContentPath: reported)
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            // Before the first listing, so that changes meanwhile are checked afterwards.
            group.addTask { try await self.client.subscribe { self.handle($0) } }
            let watcher = CurrentWatcher()
            defer { watcher.stop() }
            try await watch(with: synchroniser, watcher)

            state.update { storage in
                storage.session = self
                storage.health.connection = .connected(version: version.description)
            }
            state.logger.log(
                level: failedAfterConnect ? .debug : .info, "connected to containerd",
                metadata: ["version": "\(version)", "namespace": "\(client.namespace)"])
            restartFollowUps()
            enqueue { $0.reconcile() }

            group.addTask { try await self.process(synchroniser, watcher) }
            group.addTask { try await self.runFollowUps(synchroniser) }
            group.addTask { try await self.runTimer() }
            if !version.reportsContentCreation {
                group.addTask { try await self.pollIngests(unless: watcher, synchroniser) }
            }
            try await group.next()
        }
    }

    /// Processes pending work, without end.
    private func process(_ synchroniser: Synchroniser, _ watcher: CurrentWatcher) async throws {
        var wakeUps = self.wakeUps.makeAsyncIterator()
        while await wakeUps.next() != nil {
            let now = ContinuousClock.now
            let (work, completions) = queue.withLockedValue { queue in
                defer { queue.completions = [] }
                return (queue.work.take(now: now), queue.completions)
            }
            do {
                if work.needsReconciliation || synchroniser.directoryHasAppeared() {
                    try await synchroniser.reconcile()
                    try await watch(with: synchroniser, watcher)
                }
                let targetsChanged = try await synchroniser.update(images: work.images)
                if targetsChanged { restartFollowUps() }
                let unsettled = try await synchroniser.update(contents: work.contents)
                queue.withLockedValue { queue in
                    for (digest, attempts) in unsettled {
                        queue.work.scheduleRetry(digest, attempts: attempts, now: .now)
                    }
                }
            } catch {
                let reason = ContentStoreError(containerd: error)
                completions.forEach { $0.resume(throwing: reason) }
                throw error
            }
            completions.forEach { $0.resume() }
            scheduleRetry()
        }
        try Task.checkCancellation()
    }

    /// Wakes the processing when the next retry is due.
    private func scheduleRetry() {
        let due = queue.withLockedValue { queue -> ContinuousClock.Instant? in
            guard let due = queue.work.nextDue, queue.wakeAt.map({ due < $0 || $0 <= .now }) ?? true else {
                return nil
            }
            queue.wakeAt = due
            return due
        }
        guard let due else { return }
        Task { [wakeUp] in
            try? await Task.sleep(until: due, clock: .continuous)
            wakeUp.yield()
        }
    }

    /// Watches the blobs whenever they can be read as files.
    private func watch(with synchroniser: Synchroniser, _ watcher: CurrentWatcher) async throws {
        guard let directory = synchroniser.watchableDirectory() else { return watcher.stop() }
        guard watcher.directory != directory else { return }
        let attempt = watcher.begin()
        do {
            let started = try await BlobWatcher.start(directory, group: .singletonMultiThreadedEventLoopGroup) {
                [weak self, weak watcher] event in
                if let self, let watcher { handle(event, watcher, attempt) }
            }
            watcher.set(started, directory, attempt)
            // Finds changes before the watch began.
            enqueue { $0.reconcile() }
        } catch {
            _ = watchingFailed("\(directory.path): \(error)", watcher, attempt)
        }
    }

    private func runFollowUps(_ synchroniser: Synchroniser) async throws {
        for await _ in followUps {
            var generation = queue.withLockedValue { $0.followUpGeneration }
            var stage = 0
            while stage < Self.followUpDelays.count {
                // A listing of very much content is expensive: at most a fifth of the time is spent on listings.
                try await Task.sleep(for: max(Self.followUpDelays[stage], synchroniser.lastReconciliationTime * 4))
                enqueue { $0.reconcile() }
                let current = queue.withLockedValue { $0.followUpGeneration }
                stage = current == generation ? stage + 1 : 0
                generation = current
            }
        }
        try Task.checkCancellation()
    }

    private func runTimer() async throws {
        while true {
            try await Task.sleep(for: state.configuration.reconciliationInterval * Double.random(in: 0.5...1))
            enqueue { $0.reconcile() }
        }
    }

    /// Finds committed content where neither events nor a watch report it: while there are ingests, everything is listed
    /// periodically.
    private func pollIngests(unless watcher: CurrentWatcher, _ synchroniser: Synchroniser) async throws {
        var known: [String] = []
        while true {
            try await Task.sleep(for: max(Self.ingestPollInterval, synchroniser.lastReconciliationTime * 4))
            guard watcher.directory == nil else { continue }
            let ingests = try await client.listIngests()
            if synchroniser.directoryHasAppeared() { wakeUp.yield() }
            if !ingests.isEmpty || !known.isEmpty { enqueue { $0.reconcile() } }
            known = ingests
        }
    }
}

/// Names and content that must be checked again. A value without I/O; several reports of one name or digest coalesce.
struct PendingWork: Sendable {
    /// Beyond so many names or digests a complete listing replaces them, which bounds the memory.
    static let imageLimit = 4096
    static let contentLimit = 16384
    /// Content that containerd does not list yet is checked again after 20, 40, 80 … milliseconds, so many times: the file of
    /// a blob is created before the database transaction ends. So is content without a source.
    static let attemptLimit = 7

    private(set) var images: Set<String> = []
    /// Digests, and the number of failed checks of each.
    private(set) var contents: [Digest: Int] = [:]
    private(set) var needsReconciliation = false
    private var retries: [Digest: Retry] = [:]

    private struct Retry: Sendable {
        var attempts: Int
        var due: ContinuousClock.Instant
    }

    /// Whether no work is due.
    var isEmpty: Bool { images.isEmpty && contents.isEmpty && !needsReconciliation }

    /// Whether there is no work, due or later.
    var isIdle: Bool { isEmpty && retries.isEmpty }

    /// When the next retry is due.
    var nextDue: ContinuousClock.Instant? { retries.values.map(\.due).min() }

    mutating func add(image name: String) {
        guard images.count < Self.imageLimit || images.contains(name) else { return reconcile() }
        images.insert(name)
    }

    /// - Parameter mayAppear: whether unknown content is checked again later.
    mutating func add(content digest: Digest, mayAppear: Bool) {
        guard contents.count < Self.contentLimit || contents[digest] != nil else { return reconcile() }
        retries[digest] = nil
        contents[digest] = mayAppear ? 0 : Self.attemptLimit
    }

    mutating func reconcile() {
        needsReconciliation = true
        // A listing includes them.
        images = []
        contents = contents.filter { $0.value < Self.attemptLimit }
        if contents.count >= Self.contentLimit { contents = [:] }
    }

    /// Checks content again later, after `attempts` failed checks.
    mutating func scheduleRetry(_ digest: Digest, attempts: Int, now: ContinuousClock.Instant) {
        guard attempts < Self.attemptLimit, contents[digest] == nil, retries.count < Self.contentLimit else {
            return
        }
        retries[digest] = Retry(attempts: attempts + 1, due: now + .milliseconds(20 << attempts))
    }

    /// Takes the work that is due.
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
