import Testing

/// Waits until something is as it should be; the limit only keeps a failing test from hanging.
func eventually(_ what: Comment, _ check: () async throws -> Bool) async throws {
    let limit = ContinuousClock.now + .seconds(60)
    while try await !check() {
        try #require(ContinuousClock.now < limit, what)
        try await Task.sleep(for: .milliseconds(10))
    }
}
