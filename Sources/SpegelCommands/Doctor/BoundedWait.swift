/// Waits a limited time for work that may not heed cancellation, such as a call of the system's resolver.
enum BoundedWait {
    /// - Returns: The answer, or nil when the time is over; the work is then cancelled and not awaited.
    static func answer<Answer: Sendable>(
        within limit: Duration, _ work: @escaping @Sendable () async -> Answer
    ) async -> Answer? {
        let (answers, answer) = AsyncStream.makeStream(of: Answer?.self)
        // No child tasks, which would be awaited.
        let task = Task { answer.yield(await work()) }
        let timer = Task {
            try? await Task.sleep(for: limit)
            answer.yield(nil)
        }
        defer {
            task.cancel()
            timer.cancel()
        }
        for await first in answers { return first }
        return nil
    }
}
