import Testing

@testable import HTTPServer

@Suite struct ConnectionShareTests {
    /// Sources that take all they can get, one after the other: what each has then.
    private func taken(_ limits: HTTPLimits, sources: Int) -> [Int] {
        var open = 0
        return (0..<sources).map { _ in
            var count = 0
            while open < limits.connections, count + 1 <= limits.share(whenOpen: open + 1) {
                count += 1
                open += 1
            }
            return count
        }
    }

    /// Each leaves a quarter of what is free, so that there is room for another client.
    @Test func severalSourcesLeaveRoom() {
        #expect(taken(HTTPLimits(), sources: 5) == [12_288, 3072, 768, 192, 48])
    }

    @Test func oneSourceMayHaveAllIfThereIsNoLimitForIt() {
        var limits = HTTPLimits()
        (limits.connections, limits.connectionsPerSource) = (10, 12)
        #expect(taken(limits, sources: 2) == [10, 0])
    }

    @Test(arguments: [1, 2, 7, 100]) func aLimitIsReachedByOneSourceAlone(limit: Int) {
        var limits = HTTPLimits()
        (limits.connections, limits.connectionsPerSource) = (128, limit)
        #expect(taken(limits, sources: 1) == [limit])
    }
}
