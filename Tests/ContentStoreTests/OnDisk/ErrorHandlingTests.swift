import ContentStoreConformance
import Foundation
import Logging
import NIOCore
import OCIDistribution
import TestSupport
import Testing

@testable import ContentStore

/// Errors of the operating system are not taken for missing files.
@Suite struct ErrorHandlingTests {
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
        // No changes but those of the test are processed.
        options.watchesChanges = false
        options.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let store = try await OnDiskContentStore.open(path: path ?? layout.path, options: options)
        var events = store.events().makeAsyncIterator()
        while let event = await events.next(), event != .snapshotComplete {}
        return (store, image, events)
    }

    /// The rest of the events, once the store was shut down.
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
            try Self.disabling([tracker.directories.root.directory]) {
                tracker.rescanContents()
                // Nor is a blob taken for missing when its directory was never open.
                let directories = tracker.catalog.directories
                tracker.catalog.setDirectories([:])
                for digest in image.digests { tracker.blobs.update(digest, .found) }
                tracker.catalog.setDirectories(directories)
            }
            try Self.disabling([tracker.directories.root.directory, blobs]) {
                tracker.rescanContents()
                for digest in image.digests { tracker.blobs.update(digest, .found) }
            }
            tracker.rescanContents()
        }
        for digest in image.digests { #expect(try await store.open(digest) != nil) }
        #expect(try await store.images().count == 1)
        await store.shutdown()
        #expect(await rest(events) == [])
    }

    @Test mutating func aMissingDirectoryIsNoticed() async throws {
        let (store, image, events) = try await openWithImage()
        try FileManager.default.moveItem(atPath: "\(layout.path)/blobs", toPath: "\(layout.path)/elsewhere")
        try await store.tracker.perform { $0.rescanContents() }
        #expect(store.tracker.catalog.presentDigests == [])
        // Nor is a link followed to it.
        try FileManager.default.createSymbolicLink(
            atPath: "\(layout.path)/blobs", withDestinationPath: "\(layout.path)/elsewhere")
        try await store.tracker.perform { $0.rescanContents() }
        #expect(store.tracker.catalog.directories.isEmpty)
        await store.shutdown()
        let received = await rest(events)
        for digest in image.digests { #expect(received.contains(.contentRemoved(digest))) }
    }

    @Test mutating func aRootThatCannotBeOpenedIsNotMissing() async throws {
        let directory = try TemporaryDirectory()
        let files = FileManager.default
        let (path, other) = ("\(directory.path)/link", "\(directory.path)/other")
        func turn(to target: String) throws {
            try files.createSymbolicLink(atPath: other, withDestinationPath: target)
            try #require(rename(other, path) == 0)
        }
        try turn(to: layout.path)
        let (store, image, events) = try await openWithImage(path: path)
        // A link to itself cannot be opened, but is not a missing directory.
        try turn(to: path)
        for _ in 0..<3 {
            try await store.tracker.perform { tracker in
                tracker.rescan()
                #expect(tracker.directories.rootState == .inaccessible)
                #expect(!tracker.directories.scheduleRetry(), "one is scheduled already")
            }
        }
        for digest in image.digests { #expect(try await store.open(digest) != nil) }
        try turn(to: layout.path)
        try await store.tracker.perform { tracker in
            tracker.rescan()
            #expect(tracker.directories.rootState == .open)
        }
        for digest in image.digests { #expect(try await store.open(digest) != nil) }
        await store.shutdown()
        #expect(await rest(events) == [])
    }

    @Test mutating func aMissingRootIsNoticed() async throws {
        let (store, image, events) = try await openWithImage()
        try FileManager.default.moveItem(atPath: layout.path, toPath: "\(layout.path)-away")
        try await store.tracker.perform { tracker in
            tracker.rescan()
            #expect(tracker.directories.rootState == .missing)
            // The open directory still has everything, but it is not the layout any more.
            tracker.requestRescan()
        }
        #expect(store.tracker.catalog.presentDigests == [])
        await store.shutdown()
        let received = await rest(events)
        for digest in image.digests { #expect(received.contains(.contentRemoved(digest))) }
    }

    @Test mutating func theWatchesOfAnotherRootEnd() async throws {
        let blob = sample.layer()
        try layout.put(blob)
        let store = try await layout.open()
        let recorder = EventRecorder(store)
        defer { recorder.stop() }
        try await recorder.wait("the blob") { $0.contents[blob.digest] != nil }
        let old = try await store.tracker.perform { Held(watcher: $0.directories.watcher) }
        let next = try Layout()
        let more = sample.layer()
        try next.put(blob)
        try next.put(more)
        try FileManager.default.moveItem(atPath: layout.path, toPath: "\(layout.path)-away")
        try FileManager.default.moveItem(atPath: next.path, toPath: layout.path)
        try await recorder.wait("what the new root has") {
            Set($0.contents.keys) == [blob.digest, more.digest]
        }
        let new = try await store.tracker.perform { Held(watcher: $0.directories.watcher) }
        #expect(new.watcher != nil && new.watcher !== old.watcher)
        // It reports changes.
        let last = sample.layer()
        try layout.put(last)
        try await recorder.wait("a blob of the new root") { $0.contents[last.digest] != nil }
    }

    private struct Held: @unchecked Sendable {
        var watcher: (any LayoutWatcher)?
    }

    /// The roots of two file systems often have the same inode number.
    @Test func directoriesDifferByFileSystem() throws {
        let (proc, sys) = (try Directory.open(path: "/proc"), try Directory.open(path: "/sys"))
        #expect(try proc.place != sys.place)
        #expect(try proc.place == Directory.open(path: "/proc/").place)
    }

    // MARK: Checks

    @Test mutating func aResultForAnOldFileDoesNotApplyToANewOne() async throws {
        let store = try await layout.open(watch: false)
        let blob = sample.layer()
        try layout.put(Array(blob.bytes.reversed()), as: blob.digest)
        let stale = FileIdentity(inode: 1, size: blob.descriptor.size, modified: 1)
        try await store.tracker.perform { tracker in
            tracker.blobs.finishHashing(blob.digest, .success(HashedFile(identity: stale, digest: blob.digest)))
            #expect(tracker.catalog.info(blob.digest) == nil)
            tracker.blobs.markValid(blob.digest, stale)
            #expect(tracker.catalog.info(blob.digest) == nil)
        }
        try layout.put(blob)
        try await store.tracker.perform { tracker in
            let status = try #require(try tracker.catalog.directory(.sha256)?.status(blob.digest.hex))
            tracker.blobs.markValid(blob.digest, status.identity)
            #expect(tracker.catalog.info(blob.digest) != nil)
            // Nor does the damage of the old file affect the new one.
            tracker.blobs.finishHashing(
                blob.digest, .success(HashedFile(identity: stale, digest: Digest.hash(.sha256, of: [1]))))
            #expect(tracker.catalog.info(blob.digest) != nil)
        }
    }

    // MARK: Memory

    @Test mutating func onlyWrittenOrRequestedManifestsAreInMemory() async throws {
        let image = sample.image()
        try layout.put(image)
        let store = try await layout.open(watch: false)
        guard case .found(let content) = store.openImmediately(image.manifest.digest), case .file = content.body
        else {
            Issue.record("in memory, though it was not requested")
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
