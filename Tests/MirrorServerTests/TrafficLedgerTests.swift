import Foundation
import Logging
import OCIDistribution
import PeerRoutingCore
import Synchronization
import Testing

@testable import MirrorServer

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

@Suite struct TrafficLedgerTests {
    private static let digest = Digest.hash(of: "x".utf8)
    private static let peer = peer("peer")

    private static func peer(_ name: String) -> PeerID {
        PeerID(Multihash(code: Multihash.identity, digest: Array(name.utf8)))
    }

    /// 2026-11-27 10:20:30 UTC.
    private static let morning = 1_795_774_830.0

    private func endpoint(_ peer: PeerID, _ address: String = "10.9.9.9") -> PeerEndpoint {
        PeerEndpoint(id: peer, address: IPAddress(address)!)
    }

    private func blob(_ repository: String = "library/nginx", registry: String? = "docker.io") -> DistributionRequest {
        DistributionRequest(kind: .blob(repository: repository, Self.digest), registry: registry)
    }

    private func tag(_ tag: String, _ repository: String = "library/nginx") -> DistributionRequest {
        DistributionRequest(kind: .manifest(repository: repository, .tag(tag)), registry: "docker.io")
    }

    /// A clock that is advanced by hand.
    private final class Time: Sendable {
        private let seconds: Mutex<Double>
        init(_ seconds: Double) { self.seconds = Mutex(seconds) }
        var now: Double { seconds.withLock { $0 } }
        func advance(_ by: Double) { seconds.withLock { $0 += by } }
    }

    @Test func aVerifiedHitIsSavedOnceForEachClient() {
        let ledger = TrafficLedger { Self.morning }
        ledger.hit(blob(), clients: 2, bytes: 100, isVerified: true)
        ledger.hit(blob(), clients: 1, bytes: 7, isVerified: false)
        ledger.miss(blob(), clients: 3, reason: .timeout)
        ledger.miss(blob(), clients: 1, reason: .absent)
        let snapshot = ledger.snapshot()
        for traffic in [
            snapshot.sinceStart, snapshot.total, snapshot.today, snapshot.registries[0].traffic,
            snapshot.images[0].traffic, snapshot.minutes.last?.traffic, snapshot.hours.last?.traffic,
        ] {
            #expect(traffic?.savedBytes == 200)
            #expect(traffic?.unverifiedBytes == 7)
            #expect(traffic?.hits == 3)
            #expect(traffic?.misses == ["timeout": 3, "absent": 1])
            #expect(traffic?.missCount == 4)
        }
        #expect(snapshot.registries.map(\.name) == ["docker.io"])
        #expect(snapshot.images.map(\.name) == ["docker.io/library/nginx"])
    }

    @Test func aTransferCountsWhatEachPeerGave() {
        let ledger = TrafficLedger { Self.morning }
        let second = Self.peer("second")
        let record = ledger.startTransfer(blob())
        record.sourceStarted(endpoint(Self.peer, "10.0.0.1"), offset: 0, totalBytes: 1000, clients: 2)
        record.received(300, offset: 300)
        record.received(100, offset: 400)
        var snapshot = ledger.snapshot()
        #expect(snapshot.transferCount == 1)
        #expect(snapshot.transfers[0].bytes == 400)
        #expect(snapshot.transfers[0].totalBytes == 1000)
        #expect(snapshot.transfers[0].clients == 2)
        #expect(snapshot.transfers[0].image == "docker.io/library/nginx")
        #expect(snapshot.transfers[0].reference == Self.digest.description)
        #expect(snapshot.transfers[0].peers == [Self.peer.description])
        // Counted when the source ends, not per chunk.
        #expect(snapshot.total.takenBytes == 0)
        record.sourceEnded()
        ledger.attemptEnded(Self.peer, failure: "stalled")
        record.sourceStarted(endpoint(second, "10.0.0.2"), offset: 400, totalBytes: 1000, clients: 2)
        record.received(600, offset: 1000)
        record.end()
        ledger.attemptEnded(second, failure: nil)
        ledger.served(blob(), bytes: 55, to: "10.0.0.2")
        ledger.served(blob(), bytes: 5, to: "10.0.0.3")
        snapshot = ledger.snapshot()
        #expect(snapshot.transferCount == 0)
        let ended = snapshot.recentTransfers
        #expect(ended.count == 1)
        #expect(ended[0].end == Self.morning)
        #expect(ended[0].peers == [Self.peer, second].map(\.description))
        #expect(ended[0].sources.map(\.address) == ["10.0.0.1", "10.0.0.2"])
        #expect(ended[0].sources.map(\.offset) == [0, 400])
        #expect(snapshot.total.takenBytes == 1000)
        #expect(snapshot.total.servedBytes == 60)
        #expect(snapshot.total.savedBytes == 0)
        let image = snapshot.images[0]
        #expect(image.takenFrom == [Self.peer.description: 400, second.description: 600])
        let peers = Dictionary(uniqueKeysWithValues: snapshot.peers.map { ($0.id ?? $0.address ?? "", $0) })
        #expect(peers[Self.peer.description]?.takenBytes == 400)
        #expect(peers[Self.peer.description]?.lastOutcome == "stalled")
        #expect(peers[Self.peer.description]?.failed == 1)
        #expect(peers[second.description]?.takenBytes == 600)
        #expect(peers[second.description]?.givenBytes == 55)
        #expect(peers[second.description]?.lastOutcome == "completed")
        #expect(peers[second.description]?.completed == 1)
        #expect(peers["10.0.0.3"]?.givenBytes == 5)
        #expect(peers.count == 3)
    }

    @Test func aTransferThatEndsTwiceCountsOnce() {
        let ledger = TrafficLedger { Self.morning }
        let record = ledger.startTransfer(blob())
        record.sourceStarted(endpoint(Self.peer), offset: 0, totalBytes: 10, clients: 1)
        record.received(10, offset: 10)
        record.sourceEnded()
        record.sourceEnded()
        record.end()
        record.end()
        #expect(ledger.snapshot().total.takenBytes == 10)
    }

    @Test func endedTransfersAreLimitedToTheLastOnes() {
        let ledger = TrafficLedger { Self.morning }
        // One of which nobody gave anything, which the requests tell.
        ledger.startTransfer(blob()).end()
        for _ in 0..<TrafficLedger.keptTransfers + 5 {
            let record = ledger.startTransfer(blob())
            for offset in 0..<20 {
                record.sourceStarted(endpoint(Self.peer), offset: Int64(offset), totalBytes: 20, clients: 1)
            }
            record.end()
        }
        let ended = ledger.snapshot().recentTransfers
        #expect(ended.map(\.number) == (7...UInt64(TrafficLedger.keptTransfers) + 6).map { $0 })
        #expect(ended.allSatisfy { $0.sources.map(\.offset) == Array(0..<16) })
    }

    @Test func historyHasNoGapsAndEndsNow() {
        let time = Time(Self.morning)
        let ledger = TrafficLedger { time.now }
        ledger.hit(blob(), clients: 1, bytes: 1, isVerified: true)
        time.advance(60 * 3)
        ledger.hit(blob(), clients: 1, bytes: 10, isVerified: true)
        var snapshot = ledger.snapshot()
        #expect(snapshot.minutes.count == 60)
        #expect(snapshot.minutes.map(\.traffic.savedBytes).suffix(4) == [1, 0, 0, 10])
        #expect(zip(snapshot.minutes, snapshot.minutes.dropFirst()).allSatisfy { $1.start - $0.start == 60 })
        // Hours 0 to 10.
        #expect(snapshot.hours.count == 11)
        #expect(snapshot.hours.last?.traffic.savedBytes == 11)
        // An hour later nothing of it is among the minutes; today it still is.
        time.advance(3600)
        snapshot = ledger.snapshot()
        #expect(snapshot.minutes.allSatisfy { $0.traffic == Traffic() })
        #expect(snapshot.today.savedBytes == 11)
        // The next day.
        time.advance(86_400)
        snapshot = ledger.snapshot()
        #expect(snapshot.today == Traffic())
        #expect(snapshot.total.savedBytes == 11)
        ledger.hit(blob(), clients: 1, bytes: 5, isVerified: true)
        #expect(ledger.snapshot().today.savedBytes == 5)
        #expect(ledger.kept.value.hours.count == 1)
    }

    @Test func aClockThatIsSetBackLosesNothing() {
        let time = Time(Self.morning)
        let ledger = TrafficLedger { time.now }
        ledger.hit(blob(), clients: 1, bytes: 1, isVerified: true)
        time.advance(-7200)
        ledger.hit(blob(), clients: 1, bytes: 2, isVerified: true)
        #expect(ledger.snapshot().total.savedBytes == 3)
        #expect(ledger.kept.value.hours.map(\.traffic.savedBytes) == [3])
    }

    @Test func namesAreLimitedAndNothingIsLost() {
        var limits = TrafficAccounts.Limits()
        (limits.registries, limits.images, limits.peers, limits.peersOfImage) = (3, 4, 5, 2)
        let time = Time(Self.morning)
        let ledger = TrafficLedger(limits: limits) { time.now }
        for number in 0..<40 {
            time.advance(1)
            ledger.hit(
                blob("name-\(number)", registry: "r\(number).example"), clients: 1, bytes: 10, isVerified: true)
            ledger.served(blob("name-\(number)"), bytes: 1, to: "10.0.0.\(number)")
            ledger.attemptEnded(
                Self.peer("\(number)"), failure: "absent")
        }
        let snapshot = ledger.snapshot()
        #expect(snapshot.registries.count == 4)
        #expect(snapshot.registries.contains { $0.name == "other" })
        #expect(snapshot.registries.reduce(0) { $0 + $1.traffic.savedBytes } == 400)
        #expect(snapshot.images.count == 5)
        #expect(snapshot.images.reduce(0) { $0 + $1.traffic.savedBytes } == 400)
        #expect(snapshot.images.contains { $0.name == "docker.io/name-39" })
        #expect(snapshot.peers.filter { $0.id != nil }.count == 5)
        #expect(snapshot.peers.filter { $0.id == nil }.count == 5)
    }

    @Test func inventedNamesDoNotPushImagesOut() {
        var limits = TrafficAccounts.Limits()
        limits.images = 2
        let ledger = TrafficLedger(limits: limits) { Self.morning }
        ledger.hit(tag("1.25"), clients: 1, bytes: 10, isVerified: true)
        for number in 0..<50 { ledger.miss(blob("invented-\(number)"), clients: 1, reason: .absent) }
        ledger.miss(tag("1.26"), clients: 1, reason: .absent)
        let images = Dictionary(uniqueKeysWithValues: ledger.snapshot().images.map { ($0.name, $0) })
        #expect(images["docker.io/library/nginx"]?.traffic.savedBytes == 10)
        #expect(images["docker.io/library/nginx"]?.lastTag == "1.26")
        #expect(images["other"]?.traffic.missCount == 50)
        #expect(images.count == 2)
    }

    @Test func peersOfAnImageAreLimitedToThoseThatGaveMost() {
        var limits = TrafficAccounts.Limits()
        limits.peersOfImage = 2
        let ledger = TrafficLedger(limits: limits) { Self.morning }
        for (number, bytes) in [30, 10, 20].enumerated() {
            let record = ledger.startTransfer(blob())
            record.sourceStarted(
                endpoint(Self.peer("\(number)")), offset: 0, totalBytes: 30, clients: 1)
            record.received(bytes, offset: Int64(bytes))
            record.end()
        }
        #expect(ledger.snapshot().images[0].takenFrom.values.sorted() == [20, 30])
    }

    // MARK: Over restarts

    @Test func countsSurviveARestart() throws {
        let directory = try TemporaryDirectory()
        let file = TrafficFile(directory: directory.path, logger: quiet)
        #expect(file.read() == nil)
        let time = Time(Self.morning)
        let first = TrafficLedger { time.now }
        first.hit(tag("1.25"), clients: 1, bytes: 10, isVerified: true)
        first.served(blob(), bytes: 3, to: "10.0.0.9")
        first.attemptEnded(Self.peer, failure: nil)
        file.write(first)
        time.advance(120)
        let second = TrafficLedger(kept: TrafficFile(directory: directory.path, logger: quiet).read()) { time.now }
        second.hit(blob(), clients: 1, bytes: 5, isVerified: true)
        let snapshot = second.snapshot()
        #expect(snapshot.total.savedBytes == 15)
        #expect(snapshot.total.servedBytes == 3)
        #expect(snapshot.sinceStart.savedBytes == 5)
        #expect(snapshot.today.savedBytes == 15)
        #expect(snapshot.countedSince == Self.morning)
        #expect(snapshot.startedAt == Self.morning + 120)
        #expect(snapshot.images.first?.lastTag == "1.25")
        #expect(snapshot.peers.count == 2)
        let attributes = try FileManager.default.attributesOfItem(atPath: file.path)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == [TrafficFile.name])
    }

    @Test func nothingIsWrittenWithoutChanges() throws {
        let directory = try TemporaryDirectory()
        let file = TrafficFile(directory: directory.path, logger: quiet)
        let ledger = TrafficLedger { Self.morning }
        file.write(ledger)
        #expect(!FileManager.default.fileExists(atPath: file.path))
        ledger.miss(blob(), clients: 1, reason: .absent)
        file.write(ledger)
        #expect(FileManager.default.fileExists(atPath: file.path))
        try FileManager.default.removeItem(atPath: file.path)
        file.write(ledger)
        #expect(!FileManager.default.fileExists(atPath: file.path))
    }

    @Test(arguments: ["", "{", "[]", #"{"version":99,"countedSince":1}"#, "\u{0}\u{0}", "size"])
    func aDamagedFileIsNamedAndReplaced(_ content: String) throws {
        let directory = try TemporaryDirectory()
        let recorder = LogRecorder()
        let logger = Logger(label: "test") { _ in LogRecorder.Handler(recorder: recorder) }
        let file = TrafficFile(directory: directory.path, logger: logger)
        let bytes =
            content == "size" ? Data(repeating: 0x20, count: TrafficFile.byteLimit + 10) : Data(content.utf8)
        try bytes.write(to: URL(fileURLWithPath: file.path))
        #expect(file.read() == nil)
        #expect(recorder.lines.count == 1)
        #expect(recorder.lines.first?.contains(file.path) ?? false)
        let ledger = TrafficLedger { Self.morning }
        ledger.miss(blob(), clients: 1, reason: .absent)
        file.write(ledger)
        #expect(file.read()?.total.missCount == 1)
    }

    @Test func aDirectoryThatCannotBeWrittenIsLoggedOnce() {
        let recorder = LogRecorder()
        let logger = Logger(label: "test") { _ in LogRecorder.Handler(recorder: recorder) }
        let file = TrafficFile(directory: "/nonexistent/directory", logger: logger)
        let ledger = TrafficLedger { Self.morning }
        for _ in 0..<3 {
            ledger.miss(blob(), clients: 1, reason: .absent)
            file.write(ledger)
        }
        #expect(recorder.lines.count == 1)
    }

    @Test func whatIsReadIsLimited() throws {
        var kept = TrafficAccounts.Kept(countedSince: 1)
        for number in 0..<1000 {
            kept.registries["r\(number)"] = Traffic()
            var image = TrafficAccounts.Image(lastUsed: Double(number))
            image.traffic.savedBytes = 1
            kept.images["i\(number)"] = image
            kept.peers["p\(number)"] = TrafficAccounts.Peer(lastUsed: 1)
            kept.takers["t\(number)"] = TrafficAccounts.Taker(lastUsed: 1)
            kept.hours.append(.init(start: Double(number) * 3600, traffic: Traffic()))
        }
        let limits = TrafficAccounts.Limits()
        let accounts = TrafficAccounts(now: 2, kept: kept)
        #expect(accounts.kept.registries.count <= limits.registries + 1)
        #expect(accounts.kept.images.count <= limits.images + 1)
        #expect(accounts.kept.images.values.reduce(0) { $0 + $1.traffic.savedBytes } == 1000)
        #expect(accounts.kept.peers.count <= limits.peers)
        #expect(accounts.kept.takers.count <= limits.peers)
        #expect(accounts.kept.hours.count == 24)
    }

    @Test func concurrentEventsAreAllCounted() async {
        let ledger = TrafficLedger()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask { [self] in
                    for _ in 0..<500 {
                        let record = ledger.startTransfer(blob())
                        record.sourceStarted(endpoint(Self.peer), offset: 0, totalBytes: 2, clients: 1)
                        record.received(1, offset: 1)
                        record.received(1, offset: 2)
                        record.end()
                        ledger.hit(blob(), clients: 1, bytes: 2, isVerified: true)
                        _ = ledger.snapshot()
                    }
                }
            }
        }
        let snapshot = ledger.snapshot()
        #expect(snapshot.total.takenBytes == 8000)
        #expect(snapshot.total.savedBytes == 8000)
        #expect(snapshot.transferCount == 0)
    }
}

/// The lines that were logged.
private final class LogRecorder: Sendable {
    struct Handler: LogHandler {
        let recorder: LogRecorder
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) {
            recorder.records.withLock { $0.append("\(event.message) \(event.metadata ?? [:])") }
        }
    }

    private let records = Mutex<[String]>([])
    var lines: [String] { records.withLock { $0 } }
}

/// A directory that is removed with this object.
private final class TemporaryDirectory {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "traffic-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}
