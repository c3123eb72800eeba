import ContainerdTestKit
import Foundation
import OCIDistribution
import PeerRouting
import Synchronization
import TestSupport

/// A cluster, what is in it, and the faults, clients and readings that run on it at the same time.
final class Soak: Sendable {
    let cluster: Cluster
    let program: String
    let ledger: SoakLedger
    private let seed: UInt64
    private let state: Mutex<State>

    /// An image that is in the cluster now.
    struct Item: Sendable {
        var image: ClusterImage
        /// Nodes that have it, and since when.
        var holders: [Int: ContinuousClock.Instant]
    }

    private struct State {
        var items: [Item] = []
        /// Pulls and removals under way, by node: one at a time.
        var busy: Set<Int> = []
        /// Whether the spoiled nodes send wrong bytes now.
        var lies = false
        /// When the last fault was over and all nodes were ready.
        var calmSince: ContinuousClock.Instant?
        var number = 0
        var over = false
    }

    /// Nothing counts for so long after a fault: connections break, leases and back-offs end.
    private static let settling = Duration.seconds(8)
    /// Images at a time; the oldest goes when there is another.
    private static let imageCount = 4
    private static let imageBytes = 6 << 20

    /// The nodes that stand behind relays which do wrong.
    var spoiled: Range<Int> { (cluster.settings.nodes - 2)..<cluster.settings.nodes }
    /// The nodes that clients ask.
    var honest: Range<Int> { 0..<cluster.settings.nodes - 2 }

    static func start(program: String, nodes: Int, seed: UInt64, ledger: SoakLedger) async throws -> Soak {
        let cluster = try await Cluster.start(
            .init(
                nodes: nodes, shape: LinkShape(rate: 64 << 20, delay: .milliseconds(1), loss: 0.1),
                upstreamBytesPerSecond: 32 << 20, upstreamDelay: .milliseconds(10), storeBytes: 128 << 20))
        let soak = Soak(cluster, program, seed, ledger)
        try await cluster.startDaemons(lying: Set(soak.spoiled)) { _ in program }
        for _ in 0..<imageCount { try await soak.addImage() }
        return soak
    }

    private init(_ cluster: Cluster, _ program: String, _ seed: UInt64, _ ledger: SoakLedger) {
        self.cluster = cluster
        self.program = program
        self.seed = seed
        self.ledger = ledger
        state = Mutex(State())
    }

    func close() async throws {
        for item in state.withLock({ $0.items }) { item.image.remove() }
        try await cluster.close()
    }

    var isOver: Bool { state.withLock { $0.over } }

    func run(for duration: Duration, clients: Int) async throws {
        let end = ContinuousClock.now + duration
        endFault()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                var faults = SoakFaults(soak: self, seed: self.seed)
                while !self.isOver { try await faults.next() }
            }
            for client in 0..<clients {
                group.addTask {
                    var client = SoakClient(soak: self, seed: self.seed &+ UInt64(client + 1) &* 7919)
                    while !self.isOver { await client.next() }
                }
            }
            group.addTask {
                while !self.isOver {
                    self.read()
                    try await self.pause(.seconds(10))
                    print(self.ledger.progress)
                    fflush(nil)
                }
            }
            group.addTask {
                while ContinuousClock.now < end { try await Task.sleep(for: .milliseconds(200)) }
                self.state.withLock { $0.over = true }
            }
            try await group.waitForAll()
        }
    }

    /// Sleeps, but not beyond the end of the run.
    func pause(_ duration: Duration) async throws {
        let end = ContinuousClock.now + duration
        while ContinuousClock.now < end, !isOver { try await Task.sleep(for: .milliseconds(50)) }
    }

    // MARK: Content

    /// Makes another image, gives it to one honest and one spoiled node, and removes the oldest from all.
    func addImage() async throws {
        let number = state.withLock { state -> Int in
            state.number += 1
            return state.number
        }
        let tag = "s\(number)"
        let image = try ClusterImage(
            tag: tag, name: Cluster.name(tag: tag), bytes: Self.imageBytes, seed: seed &* 100_003 &+ UInt64(number),
            in: cluster.folder.path)
        try cluster.push(image)
        let nodes = [honest[number % honest.count], spoiled.lowerBound + number % spoiled.count]
        try await cluster.give(image, to: nodes)
        let now = ContinuousClock.now
        let old = state.withLock { state -> Item? in
            state.items.append(Item(image: image, holders: Dictionary(uniqueKeysWithValues: nodes.map { ($0, now) })))
            return state.items.count > Self.imageCount ? state.items.removeFirst() : nil
        }
        guard let old else { return }
        await cluster.forget(old.image)
        old.image.remove()
    }

    var items: [Item] { state.withLock { $0.items } }

    func setHolds(_ holds: Bool, _ node: Int, _ image: ClusterImage) {
        state.withLock { state in
            guard let index = state.items.firstIndex(where: { $0.image.tag == image.tag }) else { return }
            state.items[index].holders[node] = holds ? .now : nil
        }
    }

    /// Takes a node for a pull or a removal, unless another has it.
    func take(_ node: Int) -> Bool { state.withLock { $0.busy.insert(node).inserted } }
    func release(_ node: Int) { state.withLock { _ = $0.busy.remove(node) } }

    // MARK: Faults

    func beginFault(lies: Bool) {
        state.withLock { state in
            state.lies = lies
            state.calmSince = nil
        }
    }

    func endFault() {
        state.withLock { state in
            state.lies = false
            state.calmSince = .now
        }
    }

    /// The conditions under which something happened.
    struct Conditions: Sendable {
        /// No fault now, and none for a while before.
        var calm: Bool
        /// Whether spoiled nodes send wrong bytes now.
        var lies: Bool
        fileprivate var calmSince: ContinuousClock.Instant?

        /// Whether it was as calm at a later time, without a fault in between.
        func heldUntil(_ later: Conditions) -> Bool { calm && later.calm && calmSince == later.calmSince }
    }

    var conditions: Conditions {
        state.withLock { state in
            let calm = state.calmSince.map { $0 + Self.settling < .now } ?? false
            return Conditions(calm: calm, lies: state.lies, calmSince: state.calmSince)
        }
    }

    /// Whether an honest node has had an image for so long that every node must find it.
    func isEstablished(_ image: ClusterImage) -> Bool {
        guard let item = items.first(where: { $0.image.tag == image.tag }) else { return false }
        return item.holders.contains { honest.contains($0.key) && $0.value + Self.settling < .now }
    }

    // MARK: Growth

    /// Node 0 is never killed or replaced, so that what it uses tells of leaks.
    private func read() {
        guard let daemon = cluster.daemon(0) else { return }
        let process = "/proc/\(daemon.pid)"
        func count(_ folder: String) -> Int {
            (try? FileManager.default.contentsOfDirectory(atPath: "\(process)/\(folder)"))?.count ?? 0
        }
        ledger.add(
            .init(
                second: ledger.second, residentMiB: ProcessUsage(of: [daemon.pid]).residentMiB,
                descriptors: count("fd"), threads: count("task"), keys: advertisedKeys()))
    }

    private func advertisedKeys() -> Double {
        ((try? cluster.metric("spegel_advertised_keys", of: 0)) ?? nil) ?? 0
    }
}
