import ContentStore
import ContentStoreConformance
import Foundation
import NIOCore
import OCIDistribution
import TestSupport
import Testing

/// Changes that the conformance suite does not make.
@Suite struct ChangeTests {
    private var sample = SampleContent(seed: 400)
    private let layout: Layout

    init() throws { layout = try Layout() }

    @Test mutating func pollingFindsTheSame() async throws {
        let store = try await layout.open {
            $0.prefersPolling = true
            $0.pollInterval = .milliseconds(20)
        }
        let recorder = EventRecorder(store)
        defer { recorder.stop() }
        let image = sample.image()
        try layout.put(image)
        try layout.name(image.manifest.descriptor, "r.test/x:1")
        try await recorder.wait("the image") { !$0.images.isEmpty && image.digests.isSubset(of: $0.contents.keys) }
        try layout.removeName("r.test/x:1")
        for digest in image.digests { try layout.remove(digest) }
        try await recorder.wait("nothing") { $0.images.isEmpty && $0.contents.isEmpty }
    }

    @Test mutating func aLayoutThatGoesAndComesBackIsFoundAgain() async throws {
        let image = sample.image()
        try layout.put(image)
        try layout.name(image.manifest.descriptor, "r.test/x:1")
        let store = try await layout.open()
        let recorder = EventRecorder(store)
        defer { recorder.stop() }
        try await recorder.wait("the image") { !$0.images.isEmpty && image.digests.isSubset(of: $0.contents.keys) }
        let away = "\(layout.path)-away"
        try FileManager.default.moveItem(atPath: layout.path, toPath: away)
        try await recorder.wait("nothing") { $0.images.isEmpty && $0.contents.isEmpty }
        #expect(try await store.open(image.manifest.digest) == nil)
        try FileManager.default.moveItem(atPath: away, toPath: layout.path)
        try await recorder.wait("all again") { !$0.images.isEmpty && image.digests.isSubset(of: $0.contents.keys) }
        // It still reports changes.
        let more = sample.layer()
        try layout.put(more)
        try await recorder.wait("more") { $0.contents[more.digest] != nil }
    }

    @Test mutating func aBlobsDirectoryMadeLaterIsSeen() async throws {
        try FileManager.default.removeItem(atPath: "\(layout.path)/blobs")
        let store = try await layout.open()
        let recorder = EventRecorder(store)
        defer { recorder.stop() }
        let blob = SampleContent.Blob([1, 2, 3], algorithm: .sha512)
        try layout.put(blob)
        try await recorder.wait("the blob") { $0.contents[blob.digest] != nil }
        let image = sample.image()
        try layout.put(image)
        try await recorder.wait("the image") { image.digests.isSubset(of: $0.contents.keys) }
        try FileManager.default.removeItem(atPath: "\(layout.path)/blobs/sha256")
        try await recorder.wait("what is left") { Set($0.contents.keys) == [blob.digest] }
    }

    @Test mutating func whatOneProcessWritesAnotherSees() async throws {
        let writer = try await layout.open()
        let reader = try await layout.open()
        let recorder = EventRecorder(reader)
        defer { recorder.stop() }
        let image = sample.image()
        for blob in image.blobs.reversed() { try await writer.write(.init(bytes: blob.bytes), as: blob.digest) }
        let name = try Reference(parsing: "r.test/x:1")
        try await writer.tag(image.manifest.descriptor, as: name)
        try await recorder.wait("the image") { view in
            view.images[name] == image.manifest.digest
                && image.digests.allSatisfy { view.contents[$0]?.sources.count == 1 }
        }
        // Both change names at once; none is lost.
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (number, store) in [writer, reader].enumerated() {
                for tag in 0..<10 {
                    group.addTask {
                        try await store.tag(
                            image.manifest.descriptor,
                            as: Reference(registry: "r.test", repository: "y", tag: "t\(number)-\(tag)"))
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(try layout.index().count == 21)
        try await recorder.wait("all names") { $0.images.count == 21 }
    }

    @Test mutating func manyChangesEndInTheSameState() async throws {
        let store = try await layout.open { $0.eventBufferLimit = 16 }
        let recorder = EventRecorder(store)
        defer { recorder.stop() }
        var present: [Digest: SampleContent.Blob] = [:]
        for round in 0..<600 {
            let blob = sample.layer(size: 16 + round)
            try layout.put(blob)
            present[blob.digest] = blob
            if round % 3 == 0, let gone = present.keys.randomElement() {
                try layout.remove(gone)
                present[gone] = nil
            }
        }
        try await recorder.wait("the same state") { Set($0.contents.keys) == Set(present.keys) }
        for blob in present.values { #expect(try await store.info(blob.digest)?.size == blob.descriptor.size) }
    }

    @Test mutating func anIndexThatIsBeingWrittenInPlaceIsWaitedFor() async throws {
        let image = sample.image()
        try layout.put(image)
        // The other program may be slow to go on.
        let store = try await layout.open { $0.indexWriteTimeout = .seconds(60) }
        let text = Array(
            #"{"manifests":[{"digest":"\#(image.manifest.digest)","annotations":{"org.opencontainers.image.ref.name":"r.test/x:1"}}]}"#
                .utf8)
        let handle = open("\(layout.path)/index.json", O_WRONLY | O_TRUNC)
        #expect(write(handle, text, 30) == 30)
        let rest = Array(text[30...])
        // On a thread of its own: the wait is limited, and so is the number of the pool's threads.
        Thread.detachNewThread {
            usleep(30_000)
            write(handle, rest, rest.count)
            close(handle)
        }
        try await store.tag(image.manifest.descriptor, as: Reference(parsing: "r.test/y:1"))
        #expect(try await store.images().map(\.reference.description) == ["r.test/x:1", "r.test/y:1"])
    }

    @Test mutating func aWriterHasALimitedNumberOfFellows() async throws {
        let store = try await layout.open { $0.writerLimit = 2 }
        let digest = sample.layer().digest
        let first = try await store.beginWrite(digest, size: nil)
        var second: (any ContentWriter)? = try await store.beginWrite(digest, size: nil)
        await #expect(throws: ContentStoreError.tooManyWriters(limit: 2)) {
            try await store.beginWrite(digest, size: nil)
        }
        await first.abort()
        let third = try await store.beginWrite(digest, size: nil)
        // One that is forgotten gives its place back as well.
        #expect(second != nil)
        second = nil
        let fourth = try await store.beginWrite(digest, size: nil)
        await third.abort()
        await fourth.abort()
        // A file thread may still hold what it made.
        try await eventually("no file is left") {
            try FileManager.default.contentsOfDirectory(atPath: "\(layout.path)/.spegel/ingest").isEmpty
        }
    }

    @Test mutating func onlyDeadWritersFilesAreRemoved() async throws {
        let store = try await layout.open()
        let blob = sample.layer()
        let writer = try await store.beginWrite(blob.digest, size: blob.descriptor.size)
        try await writer.append(ByteBuffer(bytes: blob.bytes[..<1000]))
        let ingest = "\(layout.path)/.spegel/ingest"
        try Data("dead".utf8).write(to: URL(fileURLWithPath: "\(ingest)/dead"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: ingest).count == 2)
        let other = try await layout.open()
        #expect(try FileManager.default.contentsOfDirectory(atPath: ingest).count == 1)
        try await writer.append(ByteBuffer(bytes: blob.bytes[1000...]))
        _ = try await writer.commit()
        #expect(try await store.open(blob.digest) != nil)
        let recorder = EventRecorder(other)
        defer { recorder.stop() }
        try await recorder.wait("the blob") { $0.contents[blob.digest] != nil }
        #expect(try FileManager.default.contentsOfDirectory(atPath: ingest).isEmpty)
    }

    @Test mutating func aClosedStoreReadsButDoesNotWrite() async throws {
        let blob = sample.layer()
        try layout.put(blob)
        let store = try await layout.open()
        let events = store.events()
        await store.shutdown()
        #expect(try await store.open(blob.digest) != nil)
        await #expect(throws: ContentStoreError.closed) { try await store.beginWrite(blob.digest, size: nil) }
        await #expect(throws: ContentStoreError.closed) {
            try await store.tag(blob.descriptor, as: Reference(parsing: "r.test/x:1"))
        }
        for await _ in events {}
        for await event in store.events() { Issue.record("an event of a closed store: \(event)") }
    }

    @Test mutating func aManifestReachesMemoryWhenItIsAskedFor() async throws {
        let images = (0..<40).map { _ in sample.image() }
        for image in images { try layout.put(image) }
        let size = images.map(\.manifest.bytes.count).max() ?? 0
        let store = try await layout.open(watch: false) { $0.manifestCacheCapacity = size * 4 }
        for image in images {
            // The first answer is a file, unless it is in memory; then it is brought there.
            let limit = ContinuousClock.now + .seconds(60)
            while ContinuousClock.now < limit {
                let content = try #require(try await store.open(image.manifest.digest))
                #expect(Array(try await content.collect(upTo: 1 << 20).readableBytesView) == image.manifest.bytes)
                if case .bytes = content.body { break }
                try await Task.sleep(for: .milliseconds(2))
            }
            guard case .found(let content) = store.openImmediately(image.manifest.digest), case .bytes = content.body
            else {
                Issue.record("the manifest is not served from memory")
                return
            }
        }
    }
}
