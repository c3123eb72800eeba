/// What a test's surroundings could not do.
package struct HarnessFailure: Error, CustomStringConvertible {
    package var description: String

    package init(_ description: String) {
        self.description = description
    }
}

/// Asks again and again until there is an answer; the limit is only there so that nothing hangs.
///
/// - Parameter detail: What the failure says beside `what`.
/// - Throws: ``HarnessFailure`` after the limit, and what `condition` throws.
@_disfavoredOverload  // A condition that is false is no answer: the other function takes it.
package func eventually<Value>(
    _ what: String, limit: Duration = .seconds(90), every interval: Duration = .milliseconds(10),
    detail: () -> String = { "" }, _ condition: () async throws -> Value?
) async throws -> Value {
    let end = ContinuousClock.now + limit
    while true {
        // Asked once more after the limit: this process may have stood still meanwhile.
        let isOver = ContinuousClock.now >= end
        if let value = try await condition() { return value }
        if isOver { throw HarnessFailure("\(what) did not happen within \(limit)\n\(detail())") }
        try await Task.sleep(for: interval)
    }
}

/// Asks again and again until a condition holds; the limit is only there so that nothing hangs.
///
/// - Throws: ``HarnessFailure`` after the limit, and what `condition` throws.
package func eventually(
    _ what: String = "what is waited for", limit: Duration = .seconds(90),
    every interval: Duration = .milliseconds(5), _ condition: () async throws -> Bool
) async throws {
    _ = try await eventually(what, limit: limit, every: interval) { try await condition() ? true : nil }
}
