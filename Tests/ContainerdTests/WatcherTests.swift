import ContainerdTestKit
import ContentStoreConformance
import Foundation
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import OCIDistribution
import TestSupport
import Testing

@testable import ContainerdContentStore

/// A watch that sees nothing must not pass for one that does.
@Suite struct WatcherTests {
    private final class Seen: Sendable {
        private let watcher = NIOLockedValueBox<[BlobWatcherEvent]>([])
        var events: [BlobWatcherEvent] { watcher.withLockedValue { $0 } }
        var hasEnded: Bool { events.contains { if case .ended = $0 { true } else { false } } }
        func add(_ event: BlobWatcherEvent) { watcher.withLockedValue { $0.append(event) } }
    }

    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("watched-\(UUID().uuidString)")

    private var directory: BlobDirectory { BlobDirectory(path: folder.path) }

    private func make(_ path: String) throws {
        try FileManager.default.createDirectory(
            at: folder.appendingPathComponent(path), withIntermediateDirectories: true)
    }

    private func start(_ seen: Seen) async throws -> BlobWatcher {
        try await BlobWatcher.start(directory, group: .singletonMultiThreadedEventLoopGroup) { seen.add($0) }
    }

    @Test func whatCannotBeWatchedIsSaidAtOnce() async throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        await #expect(throws: IOError.self) { _ = try await start(Seen()) }
        try make("")
        // A directory that is not there yet is waited for; something else in its place is not.
        try await start(Seen()).stop()
        try Data().write(to: folder.appendingPathComponent("blobs"))
        await #expect(throws: IOError.self) { _ = try await start(Seen()) }
    }

    @Test(arguments: [true, false]) func theEndOfTheDirectoryIsTold(isMoved: Bool) async throws {
        let away = folder.path + "-away"
        defer {
            try? FileManager.default.removeItem(at: folder)
            try? FileManager.default.removeItem(atPath: away)
        }
        try make("")
        let seen = Seen()
        let watcher = try await start(seen)
        defer { watcher.stop() }
        try make("blobs/sha256")
        _ = try await eventually("the directories are seen") { seen.events.contains(.missed) ? true : nil }
        var sample = SampleContent(seed: 91)
        // Directories that are made quickly may be watched a moment after a file was put into them.
        _ = try await eventually("a blob is seen", detail: { "\(seen.events)" }) { () -> Bool? in
            let digest = sample.layer().digest
            try Data().write(to: folder.appendingPathComponent("blobs/sha256/\(digest.hex)"))
            try await Task.sleep(for: .milliseconds(10))
            return seen.events.contains { if case .appeared = $0 { true } else { false } } ? true : nil
        }
        #expect(!seen.hasEnded)
        if isMoved {
            try FileManager.default.moveItem(atPath: folder.path, toPath: away)
        } else {
            try FileManager.default.removeItem(at: folder)
        }
        _ = try await eventually("the end is reported", detail: { "\(seen.events)" }) { seen.hasEnded ? true : nil }
    }

    @Test func aDirectoryThatCannotBeWatchedAnyMoreEndsTheWatch() async throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        try make("")
        let seen = Seen()
        let watcher = try await start(seen)
        defer { watcher.stop() }
        try Data().write(to: folder.appendingPathComponent("blobs"))
        _ = try await eventually("the end is reported", detail: { "\(seen.events)" }) { seen.hasEnded ? true : nil }
    }

    @Test func onlyAnActiveWatcherIsCurrent() async throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        try make("blobs")
        let watcher = CurrentWatcher()
        let first = watcher.begin()
        #expect(watcher.directory == nil)
        #expect(watcher.end(first, reason: "no watch is left") == (true, true))
        // Its end counts once, and is logged again only with another reason.
        #expect(watcher.end(first, reason: "closed") == (false, false))
        let second = watcher.begin()
        #expect(watcher.end(first, reason: "late") == (false, false))
        #expect(watcher.end(second, reason: "no watch is left") == (true, false))

        let third = watcher.begin()
        watcher.set(try await start(Seen()), directory, third)
        #expect(watcher.directory == directory)
        #expect(watcher.end(third, reason: "no watch is left") == (true, true))
        #expect(watcher.directory == nil)

        // One that ended before it was set.
        let fourth = watcher.begin()
        #expect(watcher.end(fourth, reason: "gone") == (true, true))
        let seen = Seen()
        watcher.set(try await start(seen), directory, fourth)
        #expect(watcher.directory == nil)
        _ = try await eventually("it was stopped") { seen.hasEnded ? true : nil }
    }
}
