import ContentStore
import ContentStoreConformance
import Foundation
import NIOCore
import OCIDistribution
import SwiftProtobuf
import Testing

@testable import ContainerdContentStore

/// The parts that need no containerd.
@Suite struct ComponentTests {
    // MARK: HTTP/2 PING frames

    private func frame(_ type: UInt8, flags: UInt8 = 0, _ payload: [UInt8]) -> [UInt8] {
        [
            UInt8(payload.count >> 16), UInt8(payload.count >> 8 & 0xff), UInt8(payload.count & 0xff), type, flags, 0,
            0, 0, 1,
        ]
            + payload
    }

    @Test func pingsAreTakenOutWhereverTheBytesAreSplit() {
        var generator = SeededGenerator(state: 61)
        for _ in 0..<300 {
            var stream: [UInt8] = []
            var expected: [UInt8] = []
            var pings: [UInt64] = []
            for _ in 0..<Int.random(in: 1...12, using: &generator) {
                switch Int.random(in: 0..<4, using: &generator) {
                case 0:
                    let payload = UInt64.random(in: .min ... .max, using: &generator)
                    pings.append(payload)
                    stream += frame(6, withUnsafeBytes(of: payload.bigEndian) { Array($0) })
                case 1:
                    // The answer to a PING of ours is not to be answered.
                    let bytes = frame(6, flags: 1, [1, 2, 3, 4, 5, 6, 7, 8])
                    stream += bytes
                    expected += bytes
                default:
                    let type = UInt8.random(in: 0...9, using: &generator)
                    let length = Int.random(in: 0...40, using: &generator)
                    let payload = (0..<length).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
                    let bytes = frame(type == 6 ? 0 : type, payload)
                    stream += bytes
                    expected += bytes
                }
            }
            var filter = HTTP2PingFilter()
            var passed: [UInt8] = []
            var answered: [UInt64] = []
            var rest = stream[...]
            while !rest.isEmpty {
                let count = Int.random(in: 1...min(rest.count, 30), using: &generator)
                filter.process(ByteBuffer(bytes: rest.prefix(count))) { output in
                    switch output {
                    case .bytes(let bytes): passed += Array(bytes.readableBytesView)
                    case .ping(let payload): answered.append(payload)
                    }
                }
                rest = rest.dropFirst(count)
            }
            #expect(passed == expected)
            #expect(answered == pings)
        }
    }

    @Test func anyBytesPassThePingFilter() {
        var generator = SeededGenerator(state: 62)
        for _ in 0..<500 {
            var filter = HTTP2PingFilter()
            var received = 0
            var passed = 0
            for _ in 0..<Int.random(in: 1...20, using: &generator) {
                let bytes = (0..<Int.random(in: 0...64, using: &generator)).map { _ in
                    UInt8.random(in: 0...9, using: &generator)
                }
                received += bytes.count
                filter.process(ByteBuffer(bytes: bytes)) { output in
                    switch output {
                    case .bytes(let bytes): passed += bytes.readableBytes
                    case .ping: passed += 17
                    }
                }
            }
            // It never holds back more than the beginning of one frame.
            #expect(received - passed < 17 && passed <= received)
        }
    }

    // MARK: inotify

    @Test func inotifyRecordsAreRead() {
        func record(_ watch: Int32, _ mask: UInt32, _ name: String, padding: Int) -> [UInt8] {
            var buffer = ByteBuffer()
            let name = Array(name.utf8) + [UInt8](repeating: 0, count: padding)
            buffer.writeInteger(watch, endianness: .little)
            buffer.writeInteger(mask, endianness: .little)
            buffer.writeInteger(UInt32(7), endianness: .little)
            buffer.writeInteger(UInt32(name.count), endianness: .little)
            buffer.writeBytes(name)
            return Array(buffer.readableBytesView)
        }
        var bytes = ByteBuffer(
            bytes: record(1, 0x80, "abc", padding: 13) + record(-1, 0x4000, "", padding: 0) + [1, 2, 3])
        #expect(
            InotifyEvent(readingFrom: &bytes).map { [$0.name, "\($0.watch)", "\($0.mask)"] } == ["abc", "1", "128"])
        #expect(InotifyEvent(readingFrom: &bytes).map { [$0.name, "\($0.watch)"] } == ["", "-1"])
        #expect(InotifyEvent(readingFrom: &bytes) == nil)
        var generator = SeededGenerator(state: 63)
        for _ in 0..<500 {
            var garbage = ByteBuffer(
                bytes: (0..<Int.random(in: 0...80, using: &generator)).map { _ in
                    UInt8.random(in: .min ... .max, using: &generator)
                })
            while InotifyEvent(readingFrom: &garbage) != nil {}
        }
    }

    // MARK: Events

    @Test func eventsOfOldAndNewContainerdAreUnderstood() throws {
        let digest = "sha256:" + String(repeating: "a", count: 64)
        let create = try Containerd_Services_Images_V1_ImageCreate.with { $0.name = "x" }.serializedData()
        let content = try Containerd_Events_ContentCreate.with {
            $0.digest = digest
            $0.size = 5
        }.serializedData()
        let removed = try Containerd_Events_ContentDelete.with { $0.digest = digest }.serializedData()
        #expect(ContainerdEvent(topic: "/images/create", payload: create) == .imageChanged("x"))
        #expect(ContainerdEvent(topic: "/images/update", payload: create) == .imageChanged("x"))
        #expect(ContainerdEvent(topic: "/images/delete", payload: create) == .imageRemoved("x"))
        #expect(ContainerdEvent(topic: "/content/create", payload: content) == .contentCreated(digest))
        #expect(ContainerdEvent(topic: "/content/delete", payload: removed) == .contentRemoved(digest))
        #expect(ContainerdEvent(topic: "/tasks/exit", payload: create) == nil)
        #expect(
            ContainerdEvent(topic: "/images/create", payload: Data([0xff])) == .unreadable(topic: "/images/create"))
    }

    @Test func versionsAreCompared() {
        #expect(ContainerdVersion("1.6.20~ds1").isSupported)
        #expect(!ContainerdVersion("1.6.20~ds1").reportsContentCreation)
        #expect(!ContainerdVersion("v1.5.9").isSupported)
        #expect(!ContainerdVersion("0.9.0").isSupported)
        #expect(!ContainerdVersion("2.0.5").reportsContentCreation)
        #expect(ContainerdVersion("v2.1.0-rc.1").reportsContentCreation)
        #expect(ContainerdVersion("3.0").reportsContentCreation)
        // A development build is taken as it is, with what every version offers.
        #expect(ContainerdVersion("main-abcdef").isSupported)
        #expect(!ContainerdVersion("main-abcdef").reportsContentCreation)
    }

    // MARK: Pending work

    private var digests: [Digest] {
        var sample = SampleContent(seed: 64)
        return (0..<4).map { _ in sample.layer(size: 8).digest }
    }

    @Test func unknownContentIsAskedForAgainAndThenLeft() {
        let start = ContinuousClock.now
        var now = start
        var pending = PendingWork()
        pending.add(content: digests[0], mayAppear: true)
        var asked = 0
        while !pending.isIdle {
            let work = pending.take(now: now)
            #expect(work.contents.count == 1)
            asked += 1
            for (digest, attempts) in work.contents { pending.scheduleRetry(digest, attempts: attempts, now: now) }
            #expect(pending.isEmpty)
            if let due = pending.nextDue {
                #expect(due > now)
                now = due
            }
        }
        #expect(asked == PendingWork.attemptLimit + 1)
        #expect(now - start == .milliseconds(20 * 127))
        // Content that could not be read is checked once.
        pending.add(content: digests[1], mayAppear: false)
        let work = pending.take(now: now)
        for (digest, attempts) in work.contents { pending.scheduleRetry(digest, attempts: attempts, now: now) }
        #expect(pending.isIdle)
    }

    @Test func pendingWorkIsBounded() {
        var pending = PendingWork()
        for number in 0..<PendingWork.imageLimit * 2 {
            pending.add(image: "image-\(number % (PendingWork.imageLimit + 1))")
        }
        #expect(pending.needsReconciliation)
        #expect(pending.images.count <= PendingWork.imageLimit)
        var sample = SampleContent(seed: 65)
        pending = PendingWork()
        for _ in 0...PendingWork.contentLimit { pending.add(content: sample.layer(size: 8).digest, mayAppear: true) }
        #expect(pending.needsReconciliation)
        #expect(pending.contents.isEmpty)
    }

    @Test func backoffGrowsToItsLimitAndStartsAnew() {
        var generator = SeededGenerator(state: 66)
        var backoff = Backoff(initial: .milliseconds(50), limit: .seconds(1))
        let waits = (0..<40).map { _ in backoff.next(using: &generator) }
        #expect(waits[0] <= .milliseconds(50) && waits[0] >= .milliseconds(25))
        #expect(waits[3] >= .milliseconds(200))
        #expect(waits.allSatisfy { $0 <= .seconds(1) })
        #expect(Set(waits.suffix(10)).count > 1)
        backoff.reset()
        #expect(backoff.next(using: &generator) <= .milliseconds(50))
    }

    // MARK: Files

    @Test func onlyRegularFilesOfTheRightSizeAreOpened() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("blobs-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let blobs = folder.appendingPathComponent("blobs/sha256")
        try FileManager.default.createDirectory(at: blobs, withIntermediateDirectories: true)
        let directory = BlobDirectory(path: folder.path + "/")
        let digests = digests
        func url(_ index: Int) -> URL { blobs.appendingPathComponent(digests[index].hex) }
        try Data([1, 2, 3]).write(to: url(0))
        try FileManager.default.createSymbolicLink(at: url(1), withDestinationURL: url(0))
        mkfifo(url(2).path, 0o600)
        guard case .file(let descriptor) = directory.open(digests[0], size: 3) else {
            Issue.record("not opened")
            return
        }
        close(descriptor)
        for (index, size) in [(0, 4), (1, 3), (2, 0)] {
            guard case .damaged = directory.open(digests[index], size: Int64(size)) else {
                Issue.record("\(index) was opened")
                continue
            }
        }
        guard case .absent = directory.open(digests[3], size: 3) else {
            Issue.record("3 was opened")
            return
        }
        #expect(directory.accessError() == nil)
        #expect(BlobDirectory(path: folder.path + "/none").accessError() == .missing)
        #expect(BlobDirectory(path: url(0).path).accessError() == .notADirectory)
    }
}

/// Reproducible randomness (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
