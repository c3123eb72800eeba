import ContentStore
import Logging

/// Connects to containerd again and again until its task is cancelled.
struct ConnectionLoop: Sendable {
    let state: ContainerdState

    /// Runs until cancellation.
    func run() async {
        var history = ConnectionHistory(
            initialBackoff: state.configuration.initialBackoff, maximumBackoff: state.configuration.maximumBackoff)
        var generator = SystemRandomNumberGenerator()
        while !Task.isCancelled {
            let before = state.read { $0.health.reconciliations }
            let (wasConnected, reason) = await runConnection(failedAfterConnect: history.failedAfterConnect)
            guard !Task.isCancelled else { break }
            let madeProgress = state.read { $0.health.reconciliations } != before
            state.update { $0.health.connection = .disconnected(reason: reason) }
            let (shouldLog, wait) = history.ended(
                reason: reason, wasConnected: wasConnected, madeProgress: madeProgress, using: &generator)
            state.logger.log(
                level: shouldLog ? .error : .debug, "containerd is not available", metadata: ["reason": "\(reason)"])
            try? await Task.sleep(for: wait)
        }
        state.update { $0.health.connection = .disconnected(reason: "the store was shut down") }
    }

    /// Runs one connection to its end, and returns the reason of the end.
    private func runConnection(failedAfterConnect: Bool) async -> (wasConnected: Bool, reason: String) {
        let configuration = state.configuration
        var reason = "the connection to containerd ended"
        do {
            try SocketDiagnosis.probe(configuration.socketPath)
            let client = try ContainerdClient(
                socketPath: configuration.socketPath, namespace: configuration.namespace,
                callTimeout: configuration.callTimeout)
            try await ContainerdSession(client: client, state: state).run(failedAfterConnect: failedAfterConnect)
        } catch ContentStoreError.unavailable(let text) {
            reason = text
        } catch {
            reason = String(describing: error)
        }
        let wasConnected = state.update { storage in
            let wasConnected = storage.session != nil
            storage.session = nil
            if wasConnected { storage.health.lostConnections += 1 }
            return wasConnected
        }
        return (wasConnected, reason)
    }
}

/// Determines the wait before the next connection, and whether the end of one is logged, from how the former ones ended.
struct ConnectionHistory: Sendable {
    private var backoff: Backoff
    private var lastReason: String?
    /// Whether the last connection was made, but ended before everything was listed: the next is likely to do the same.
    private(set) var failedAfterConnect = false

    init(initialBackoff: Duration, maximumBackoff: Duration) {
        backoff = Backoff(initial: initialBackoff, limit: maximumBackoff)
    }

    /// Records the end of a connection, or a failed attempt to connect.
    ///
    /// - Parameters:
    ///   - wasConnected: whether containerd was reached.
    ///   - madeProgress: whether everything was listed. A connection alone does not reset the backoff: where every listing
    ///     fails, as with a namespace that containerd refuses, attempts would follow each other without a pause.
    /// - Returns: whether the reason differs from the last one and is to be logged, and how long to wait.
    mutating func ended(
        reason: String, wasConnected: Bool, madeProgress: Bool, using generator: inout some RandomNumberGenerator
    ) -> (shouldLog: Bool, wait: Duration) {
        if madeProgress {
            backoff.reset()
            lastReason = nil
        }
        defer { lastReason = reason }
        failedAfterConnect = wasConnected && !madeProgress
        return (lastReason != reason, backoff.next(using: &generator))
    }
}

/// Exponential backoff with jitter, so that the daemons of many nodes do not act in step.
struct Backoff: Sendable {
    let initial: Duration
    let limit: Duration
    private var failures = 0

    init(initial: Duration, limit: Duration) {
        self.initial = initial
        self.limit = limit
    }

    /// Counts a failure.
    ///
    /// - Returns: between half and all of `initial * 2^failures`, at most `limit`.
    mutating func next(using generator: inout some RandomNumberGenerator) -> Duration {
        let full = min(limit, initial * (1 << min(failures, 16)))
        failures += 1
        return full * Double.random(in: 0.5...1, using: &generator)
    }

    /// Starts again with the initial wait.
    mutating func reset() { failures = 0 }
}
