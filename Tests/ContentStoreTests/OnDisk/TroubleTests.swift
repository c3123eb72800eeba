import ContentStoreConformance
import Foundation
import Logging
import NIOCore
import OCIDistribution
import Testing

@testable import ContentStore

/// What the operating system refuses for a while is not gone.
@Suite struct TroubleTests {
    private var sample = SampleContent(seed: 600)
    private let layout: Layout

    init() throws { layout = try Layout() }

    /// A store of one image, and a subscriber that knows all of it.
    private mutating func openWithImage(
        path: String? = nil
    ) async throws -> (OnDiskContentStore, SampleContent.Image, ContentEvents.AsyncIterator) {
        let image = sample.image()
        try layout.put(image)
        try layout.name(image.manifest.descriptor, "r.test/x:1")
        var options = OnDiskContentStore.Options()
        // Nothing happens but what the test does.
        options.watchesChanges = false
        options.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let store = try await OnDiskContentStore.open(path: path ?? layout.path, options: options)
        var events = store.events().makeAsyncIterator()
        while let event = await events.next(), event != .snapshotComplete {}
        return (store, image, events)
    }

    /// What was told, when the store has been closed.
    private func rest(_ events: ContentEvents.AsyncIterator) async -> [ContentEvent] {
        var events = events
        var result: [ContentEvent] = []
        while let event = await events.next() { result.append(event) }
        return result
    }

    /// Makes every use of an open directory an error, by putting something else behind its descriptor.
    private static func disabling(_ directories: [Directory], _ body: () -> Void) throws {
        let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
        try #require(null >= 0)
        let saved = directories.map { fcntl($0.descriptor, F_DUPFD_CLOEXEC, 0) }
        for directory in directories { try #require(dup2(null, directory.descriptor) >= 0) }
        body()
        for (directory, copy) in zip(directories, saved) {
            try #require(dup2(copy, directory.descriptor) >= 0)
            _ = fcntl(directory.descriptor, F_SETFD, FD_CLOEXEC)
            close(copy)
        }
        close(null)
    }

    @Test mutating func directoriesThatCannotBeReadAreNotEmpty() async throws {
        let (store, image, events) = try await openWithImage()
        try await store.tracker.perform { tracker in
            let blobs = try #require(tracker.catalog.directory(.sha256))
            try Self.disabling([tracker.root.directory]) {
                tracker.rescanOrKeep()
                // One that could never be opened says nothing of a blob either.
                let directories = tracker.catalog.directories
                tracker.catalog.setDirectories([:])
                for digest in image.digests { tracker.refresh(digest, .noticed) }
                tracker.catalog.setDirectories(directories)
            }
            try Self.disabling([tracker.root.directory, blobs]) {
                tracker.rescanOrKeep()
                for digest in image.digests { tracker.refresh(digest, .noticed) }
            }
            tracker.rescanOrKeep()
        }
        for digest in image.digests { #expect(try await store.open(digest) != nil) }
        #expect(try await store.images().count == 1)
        store.close()
        #expect(await rest(events) == [])
    }

    @Test mutating func aDirectoryThatIsReallyGoneIsNoticed() async throws {
        let (store, image, events) = try await openWithImage()
        try FileManager.default.moveItem(atPath: "\(layout.path)/blobs", toPath: "\(layout.path)/elsewhere")
        try await store.tracker.perform { $0.rescanOrKeep() }
        #expect(store.tracker.catalog.presentDigests == [])
        // Nor is a link followed to it.
        try FileManager.default.createSymbolicLink(
            atPath: "\(layout.path)/blobs", withDestinationPath: "\(layout.path)/elsewhere")
        try await store.tracker.perform { $0.rescanOrKeep() }
        #expect(store.tracker.catalog.directories.isEmpty)
        store.close()
        let told = await rest(events)
        for digest in image.digests { #expect(told.contains(.contentRemoved(digest))) }
    }

    @Test mutating func aRootThatCannotBeOpenedIsNotGone() async throws {
        let directory = try TemporaryDirectory()
        let files = FileManager.default
        let (path, other) = ("\(directory.path)/link", "\(directory.path)/other")
        func turn(to target: String) throws {
            try files.createSymbolicLink(atPath: other, withDestinationPath: target)
            try #require(rename(other, path) == 0)
        }
        try turn(to: layout.path)
        let (store, image, events) = try await openWithImage(path: path)
        // A link to itself cannot be opened, but that is not to say that there is nothing.
        try turn(to: path)
        for _ in 0..<3 {
            try await store.tracker.perform { tracker in
                tracker.reconcile()
                #expect(tracker.isRootInDoubt && !tracker.isRootGone)
                #expect(tracker.isRootRetryScheduled)
            }
        }
        for digest in image.digests { #expect(try await store.open(digest) != nil) }
        try turn(to: layout.path)
        try await store.tracker.perform { tracker in
            tracker.reconcile()
            #expect(!tracker.isRootInDoubt && !tracker.isRootGone)
        }
        for digest in image.digests { #expect(try await store.open(digest) != nil) }
        store.close()
        #expect(await rest(events) == [])
    }

    @Test mutating func aRootThatIsReallyGoneIsNoticed() async throws {
        let (store, image, events) = try await openWithImage()
        try FileManager.default.moveItem(atPath: layout.path, toPath: "\(layout.path)-away")
        try await store.tracker.perform { tracker in
            tracker.reconcile()
            #expect(tracker.isRootGone)
            // The directory that is open still has everything, but it is not the layout any more.
            tracker.needsRescan = true
            tracker.flush()
        }
        #expect(store.tracker.catalog.presentDigests == [])
        store.close()
        let told = await rest(events)
        for digest in image.digests { #expect(told.contains(.contentRemoved(digest))) }
    }

    @Test mutating func theWatchesOfAnotherRootEnd() async throws {
        let blob = sample.layer()
        try layout.put(blob)
        let store = try await layout.open()
        let recorder = EventRecorder(store)
        defer { recorder.stop() }
        try await recorder.wait("the blob") { $0.contents[blob.digest] != nil }
        let old = try await store.tracker.perform { Held(watcher: $0.watcher) }
        let next = try Layout()
        let more = sample.layer()
        try next.put(blob)
        try next.put(more)
        try FileManager.default.moveItem(atPath: layout.path, toPath: "\(layout.path)-away")
        try FileManager.default.moveItem(atPath: next.path, toPath: layout.path)
        try await recorder.wait("what the new root has") {
            Set($0.contents.keys) == [blob.digest, more.digest]
        }
        let new = try await store.tracker.perform { Held(watcher: $0.watcher) }
        #expect(new.watcher != nil && new.watcher !== old.watcher)
        // It hears of changes.
        let last = sample.layer()
        try layout.put(last)
        try await recorder.wait("a blob of the new root") { $0.contents[last.digest] != nil }
    }

    private struct Held: @unchecked Sendable {
        var watcher: (any LayoutWatcher)?
    }

    /// The roots of two file systems often have the same inode number.
    @Test func directoriesAreToldApartByFileSystemToo() throws {
        let (proc, sys) = (try Directory.open(path: "/proc"), try Directory.open(path: "/sys"))
        #expect(try proc.place != sys.place)
        #expect(try proc.place == Directory.open(path: "/proc/").place)
    }

    // MARK: Checks

    @Test mutating func aCheckOfAnOldFileSaysNothingOfANewOne() async throws {
        let store = try await layout.open(watch: false)
        let blob = sample.layer()
        try layout.put(Array(blob.bytes.reversed()), as: blob.digest)
        let stale = FileIdentity(inode: 1, size: blob.descriptor.size, modified: 1)
        try await store.tracker.perform { tracker in
            tracker.checked(blob.digest, .success(HashedFile(identity: stale, digest: blob.digest)))
            #expect(tracker.catalog.info(blob.digest) == nil)
            tracker.accept(blob.digest, stale)
            #expect(tracker.catalog.info(blob.digest) == nil)
        }
        try layout.put(blob)
        try await store.tracker.perform { tracker in
            let status = try #require(try tracker.catalog.directory(.sha256)?.status(blob.digest.hex))
            tracker.accept(blob.digest, status.identity)
            #expect(tracker.catalog.info(blob.digest) != nil)
            // Nor does one that found the old file bad take the new one away.
            tracker.checked(blob.digest, .success(HashedFile(identity: stale, digest: Digest.hash(.sha256, of: [1]))))
            #expect(tracker.catalog.info(blob.digest) != nil)
        }
    }

    // MARK: Memory

    @Test mutating func onlyManifestsThatWereWrittenOrAskedForAreInMemory() async throws {
        let image = sample.image()
        try layout.put(image)
        let store = try await layout.open(watch: false)
        guard case .found(let content) = store.openImmediately(image.manifest.digest), case .file = content.body
        else {
            Issue.record("in memory, though nobody asked for it")
            return
        }
        let other = sample.image()
        try await store.write(ByteBuffer(bytes: other.manifest.bytes), as: other.manifest.digest)
        guard case .found(let content) = store.openImmediately(other.manifest.digest), case .bytes = content.body
        else {
            Issue.record("not in memory, though it was just written")
            return
        }
    }
}
