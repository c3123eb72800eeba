import ContentStoreConformance
import NIOConcurrencyHelpers
import OCIDistribution
import Testing

@testable import ContentStore

@Suite struct ContentEventHubTests {
    private func info(_ number: Int) -> ContentInfo {
        ContentInfo(
            digest: Digest.hash(.sha256, of: Array("\(number)".utf8)), size: Int64(number), mediaType: .octetStream)
    }

    /// A backend with nothing but a number of contents.
    private final class Backend: Sendable {
        let contents: NIOLockedValueBox<[Digest: ContentInfo]?>
        let hub: ContentEventHub

        init(bufferLimit: Int, isReady: Bool = true) {
            let contents = NIOLockedValueBox<[Digest: ContentInfo]?>(isReady ? [:] : nil)
            self.contents = contents
            hub = ContentEventHub(bufferLimit: bufferLimit) { deliver in
                contents.withLockedValue { contents in
                    if let contents { deliver(contents.values.map { .contentAdded($0) }) }
                }
            }
        }

        func add(_ info: ContentInfo) {
            contents.withLockedValue { contents in
                contents?[info.digest] = info
                hub.publish([.contentAdded(info)])
            }
        }
    }

    @Test func aSlowSubscriberGetsANewSnapshotInsteadOfAllItMissed() async {
        let backend = Backend(bufferLimit: 4)
        var iterator = backend.hub.subscribe().makeAsyncIterator()
        #expect(await iterator.next() == .snapshotStarted)
        #expect(await iterator.next() == .snapshotComplete)
        for number in 0..<4 { backend.add(info(number)) }
        for number in 0..<4 { #expect(await iterator.next() == .contentAdded(info(number))) }
        for number in 4..<10 { backend.add(info(number)) }
        #expect(await iterator.next() == .snapshotStarted)
        var known: Set<Digest> = []
        while case .contentAdded(let info)? = await iterator.next() { known.insert(info.digest) }
        #expect(known == Set((0..<10).map { info($0).digest }))
        backend.add(info(10))
        #expect(await iterator.next() == .contentAdded(info(10)))
    }

    @Test func aSnapshotIsToldToItsEndEvenIfItIsOutOfDate() async {
        let backend = Backend(bufferLimit: 2)
        for number in 0..<5 { backend.add(info(number)) }
        var iterator = backend.hub.subscribe().makeAsyncIterator()
        #expect(await iterator.next() == .snapshotStarted)
        for number in 5..<20 { backend.add(info(number)) }
        var first = 0
        while case .contentAdded? = await iterator.next() { first += 1 }
        #expect(first == 5)
        #expect(await iterator.next() == .snapshotStarted)
        var second = 0
        while case .contentAdded? = await iterator.next() { second += 1 }
        #expect(second == 20)
    }

    @Test func aGapOfTheBackendBecomesANewSnapshot() async {
        let backend = Backend(bufferLimit: 10)
        backend.add(info(1))
        var iterator = backend.hub.subscribe().makeAsyncIterator()
        for _ in 0..<3 { _ = await iterator.next() }
        backend.contents.withLockedValue { $0 = [:] }
        backend.hub.invalidate()
        #expect(await iterator.next() == .snapshotStarted)
        #expect(await iterator.next() == .snapshotComplete)
    }

    @Test func aBackendThatIsNotReadyKeepsItsSubscribersWaiting() async {
        let backend = Backend(bufferLimit: 10, isReady: false)
        let events = backend.hub.subscribe()
        let first = Task {
            var iterator = events.makeAsyncIterator()
            return await iterator.next()
        }
        await Task.yield()
        backend.contents.withLockedValue { $0 = [:] }
        backend.hub.invalidate()
        #expect(await first.value == .snapshotStarted)
    }

    @Test func subscribersThatAreReleasedAreForgotten() async {
        let backend = Backend(bufferLimit: 10)
        do {
            let events = backend.hub.subscribe()
            #expect(backend.hub.subscriberCount == 1)
            var iterator = events.makeAsyncIterator()
            #expect(await iterator.next() == .snapshotStarted)
        }
        #expect(backend.hub.subscriberCount == 0)
        for number in 0..<100 { backend.add(info(number)) }
    }

    @Test func theEndComesAfterWhatIsLeft() async {
        let backend = Backend(bufferLimit: 10)
        var iterator = backend.hub.subscribe().makeAsyncIterator()
        for _ in 0..<2 { _ = await iterator.next() }
        backend.add(info(1))
        backend.hub.finish()
        #expect(await iterator.next() == .contentAdded(info(1)))
        #expect(await iterator.next() == nil)
    }

    /// Subscribers of every speed end up knowing what the backend knows, whatever happens meanwhile.
    @Test(arguments: [1, 3, 50, 10_000]) func everySubscriberConvergesToTheState(_ bufferLimit: Int) async throws {
        let backend = Backend(bufferLimit: bufferLimit)
        let views = (0..<6).map { _ in NIOLockedValueBox(StoreView()) }
        let tasks = views.enumerated().map { number, view in
            let events = backend.hub.subscribe()
            return Task {
                for await event in events {
                    view.withLockedValue { $0.apply(event) }
                    for _ in 0..<number { await Task.yield() }
                }
            }
        }
        await withTaskGroup(of: Void.self) { group in
            for lane in 0..<4 {
                group.addTask {
                    for number in 0..<200 {
                        backend.add(info(lane * 1000 + number))
                        if number % 50 == 0 { backend.hub.invalidate() }
                        if number % 10 == 0 { await Task.yield() }
                    }
                }
            }
        }
        backend.hub.publish([])
        let expected = backend.contents.withLockedValue { $0 }
        for view in views {
            let limit = ContinuousClock.now + .seconds(60)
            while !view.withLockedValue({ $0.isComplete && $0.contents == expected }) {
                try #require(ContinuousClock.now < limit, "a subscriber does not converge")
                try await Task.sleep(for: .milliseconds(5))
            }
        }
        for task in tasks { task.cancel() }
        for task in tasks { await task.value }
    }
}
