import NIOCore
import PeerRoutingCore

@testable import ContentClaims

/// Nodes that pull contents at the same time, with arbiters, an upstream and faults, in steps of simulated time.
///
/// A flow model: a leader's copy grows by the upstream's rate, a follower's by its share of its parent's link up to what the
/// parent has. Claims and reports take a round trip; those to a dead node take their deadline.
struct ClaimSimulation {
    struct Setup {
        var nodes = 1000
        var contents = 20
        /// Of one content.
        var bytes: UInt64 = 256 << 20
        /// Bytes per second: what the upstream gives to each node, and what a node can send.
        var upstreamRate: UInt64 = 100 << 20
        var linkRate: UInt64 = 1 << 30
        /// All begin within this time.
        var spread: TimeAmount = .milliseconds(100)
        /// The part of the nodes that dies, at a random moment of the first three seconds.
        var deaths = 0.0
        /// The part of the nodes that takes the second nearest node for the arbiter.
        var splitViews = 0.0
        /// The arbiter of every content dies after half a second.
        var arbiterDies = false
        /// The first leader of every content never gets a byte.
        var leaderNeverStarts = false
        /// The first leader of every content dies when it has half.
        var leaderDiesHalfWay = false
        var seed: UInt64 = 1
    }

    struct Outcome {
        /// Copies that the upstream has sent, by content.
        var copies: [Double] = []
        /// From the request to the first byte, or to the answer to go upstream; milliseconds.
        var waits: [Double] = []
        var messages = 0
        var nodes = 0
        var deepest = 0
        /// When the last living node had everything, in seconds.
        var seconds = 0.0
        /// Pulls of living nodes that did not complete.
        var incomplete = 0

        var meanCopies: Double { copies.reduce(0, +) / Double(max(1, copies.count)) }
        var worstCopies: Double { copies.max() ?? 0 }
        var wait99: Double { waits.sorted().dropLast(waits.count / 100).last ?? 0 }
        var messagesPerNode: Double { Double(messages) / Double(max(1, nodes)) }
    }

    private enum State {
        case waiting(NIODeadline)
        case claiming(until: NIODeadline, attempt: Int, first: Int)
        case upstream(isLeader: Bool)
        case following(Int)
        case done
    }

    private struct Pull {
        var state: State
        var arbiter = 0
        /// How many of the nearest nodes it has found dead: it does not ask them again.
        var deadArbiters = 0
        var begun: NIODeadline
        var bytes: UInt64 = 0
        var failedParent: Int?
        var lastGrowth: NIODeadline
        var lastReport: NIODeadline
        var hasWaited = false
        var children = 0
        var isStuck = false
    }

    /// Those that a node knows, and how many of them it asks for one claim.
    private static let nearestNodes = 12
    private static let arbiterLimit = 6
    private static let step = TimeAmount.milliseconds(20)
    private static let roundTrip = TimeAmount.milliseconds(1)
    private static let claimDeadline = TimeAmount.seconds(1)
    /// Without a byte of the parent for so long, a follower claims again.
    private static let parentDeadline = TimeAmount.seconds(2)
    private static let reportInterval = TimeAmount.milliseconds(500)

    private let setup: Setup
    private var random: SplitMix64
    private var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
    private var dies: [NIODeadline?]
    /// The nodes nearest to each content.
    private var nearest: [[Int]] = []
    private var tables: [Int: ClaimTable<Int>] = [:]
    private var pulls: [[Pull]] = []
    private var firstLeader: [Int?]
    private var upstreamBytes: [UInt64]
    private var outcome = Outcome()

    static func run(_ setup: Setup) -> Outcome {
        var simulation = ClaimSimulation(setup)
        simulation.run()
        return simulation.outcome
    }

    private init(_ setup: Setup) {
        self.setup = setup
        random = SplitMix64(seed: setup.seed)
        dies = Array(repeating: nil, count: setup.nodes)
        firstLeader = Array(repeating: nil, count: setup.contents)
        upstreamBytes = Array(repeating: 0, count: setup.contents)
        for node in 0..<setup.nodes where random.fraction() < setup.deaths {
            dies[node] = now + .nanoseconds(Int64(random.fraction() * 3e9))
        }
        for _ in 0..<setup.contents {
            nearest.append((0..<Self.nearestNodes).map { _ in Int(random.next() % UInt64(setup.nodes)) })
            if setup.arbiterDies { dies[nearest[nearest.count - 1][0]] = now + .milliseconds(500) }
            pulls.append(
                (0..<setup.nodes).map { _ in
                    let start = now + .nanoseconds(Int64(random.fraction() * Double(setup.spread.nanoseconds)))
                    return Pull(state: .waiting(start), begun: start, lastGrowth: start, lastReport: start)
                })
        }
    }

    private func isAlive(_ node: Int) -> Bool { dies[node].map { now < $0 } ?? true }

    private mutating func run() {
        let start = now
        // Far beyond what any fault needs.
        while now - start < .seconds(120), !isOver {
            now = now + Self.step
            for content in 0..<setup.contents {
                for node in 0..<setup.nodes where isAlive(node) { advance(content, node) }
            }
        }
        outcome.seconds = Double((now - start).nanoseconds) / 1e9
        outcome.nodes = setup.nodes
        outcome.copies = upstreamBytes.map { Double($0) / Double(setup.bytes) }
        for content in 0..<setup.contents {
            for node in 0..<setup.nodes where isAlive(node) {
                if case .done = pulls[content][node].state { continue }
                outcome.incomplete += 1
            }
        }
    }

    private var isOver: Bool {
        pulls.allSatisfy { content in
            content.indices.allSatisfy { node in
                if case .done = content[node].state { return true }
                return !isAlive(node)
            }
        }
    }

    private mutating func advance(_ content: Int, _ node: Int) {
        switch pulls[content][node].state {
        case .done: return
        case .waiting(let start):
            guard now >= start else { return }
            claim(content, node, attempt: random.fraction() < setup.splitViews ? 1 : nil)
        case .claiming(let until, let attempt, let first):
            if now >= until { answered(content, node, attempt: attempt, first: first) }
        case .upstream(let isLeader):
            if pulls[content][node].isStuck { return }
            let bytes = min(setup.upstreamRate * 20 / 1000, setup.bytes - pulls[content][node].bytes)
            upstreamBytes[content] += bytes
            grow(content, node, by: bytes, reports: isLeader)
            if setup.leaderDiesHalfWay, firstLeader[content] == node, pulls[content][node].bytes >= setup.bytes / 2 {
                dies[node] = now
            }
        case .following(let parent):
            follow(content, node, parent)
        }
    }

    /// The message is on its way; the answer comes after a round trip, or not until the deadline.
    ///
    /// - Parameters:
    ///   - attempt: which of the nearest nodes is asked; nil for the first that is not known to be dead.
    ///   - first: the one that was asked first for this claim.
    private mutating func claim(_ content: Int, _ node: Int, attempt: Int? = nil, first: Int? = nil) {
        outcome.messages += 1
        let attempt = attempt ?? min(pulls[content][node].deadArbiters, Self.nearestNodes - 1)
        let first = first ?? attempt
        let isThere = isAlive(nearest[content][attempt])
        pulls[content][node].state = .claiming(
            until: now + (isThere ? Self.roundTrip : Self.claimDeadline), attempt: attempt, first: first)
    }

    private mutating func answered(_ content: Int, _ node: Int, attempt: Int, first: Int) {
        let arbiter = nearest[content][attempt]
        if isAlive(arbiter), attempt == 1, first == 1, isAlive(nearest[content][0]),
            pulls[content][node].deadArbiters == 0
        {
            // It knows that one to be nearer.
            return claim(content, node)
        }
        var answer = ClaimTable<Int>.Answer.unknown
        if isAlive(arbiter) {
            answer = tables[arbiter, default: ClaimTable()].claim(
                "\(content)", by: node, offset: pulls[content][node].bytes,
                failedParent: pulls[content][node].failedParent, upstreamRate: setup.upstreamRate,
                isSecondChoice: pulls[content][node].deadArbiters > 0, now: now)
        }
        pulls[content][node].arbiter = arbiter
        let failed = pulls[content][node].failedParent
        pulls[content][node].failedParent = nil
        pulls[content][node].lastGrowth = now
        if !isAlive(arbiter) { pulls[content][node].deadArbiters = max(pulls[content][node].deadArbiters, attempt + 1) }
        switch answer {
        case .unknown where attempt + 1 < min(first + Self.arbiterLimit, Self.nearestNodes):
            claim(content, node, attempt: attempt + 1, first: first)
        case .wait:
            pulls[content][node].failedParent = failed
            pulls[content][node].state = .waiting(now + .milliseconds(500))
        case .unknown:
            begun(content, node)
            pulls[content][node].state = .upstream(isLeader: false)
        case .lead:
            begun(content, node)
            pulls[content][node].state = .upstream(isLeader: true)
            if firstLeader[content] == nil {
                firstLeader[content] = node
                pulls[content][node].isStuck = setup.leaderNeverStarts
                // Stopped for good: its own containerd has given up as well.
                if setup.leaderNeverStarts { dies[node] = now + .seconds(5) }
            }
        case .follow(let parent):
            pulls[content][parent].children += 1
            pulls[content][node].state = .following(parent)
            var (depth, above) = (1, parent)
            while case .following(let next) = pulls[content][above].state, depth < 100 {
                (depth, above) = (depth + 1, next)
            }
            outcome.deepest = max(outcome.deepest, depth)
        }
    }

    private mutating func begun(_ content: Int, _ node: Int) {
        guard !pulls[content][node].hasWaited else { return }
        pulls[content][node].hasWaited = true
        outcome.waits.append(Double((now - pulls[content][node].begun).nanoseconds) / 1e6)
    }

    private mutating func follow(_ content: Int, _ node: Int, _ parent: Int) {
        let source = pulls[content][parent]
        guard isAlive(parent), now - pulls[content][node].lastGrowth < Self.parentDeadline else {
            pulls[content][parent].children -= 1
            pulls[content][node].failedParent = parent
            return claim(content, node)
        }
        let share = setup.linkRate * 20 / 1000 / UInt64(max(1, source.children))
        let own = pulls[content][node].bytes
        guard source.bytes > own else { return }
        begun(content, node)
        grow(content, node, by: min(source.bytes - own, share), reports: true)
        if case .done = pulls[content][node].state { pulls[content][parent].children -= 1 }
    }

    private mutating func grow(_ content: Int, _ node: Int, by bytes: UInt64, reports: Bool) {
        pulls[content][node].bytes += bytes
        pulls[content][node].lastGrowth = now
        let isComplete = pulls[content][node].bytes == setup.bytes
        if isComplete { pulls[content][node].state = .done }
        let arbiter = pulls[content][node].arbiter
        guard reports, isComplete || now - pulls[content][node].lastReport >= Self.reportInterval else { return }
        pulls[content][node].lastReport = now
        outcome.messages += 1
        if isAlive(arbiter) {
            let isKnown = tables[arbiter, default: ClaimTable()].report(
                isComplete ? .complete : .arriving(bytes: pulls[content][node].bytes), of: "\(content)", by: node,
                now: now)
            if isKnown || isComplete { return }
        }
        // Another arbiter is told what is going on.
        guard !isComplete, let other = nearest[content].first(where: isAlive) else { return }
        let current: ClaimTable<Int>.Current
        switch pulls[content][node].state {
        case .upstream: current = .leading
        case .following(let parent): current = .following(parent)
        case .waiting, .claiming, .done: return
        }
        outcome.messages += 1
        pulls[content][node].arbiter = other
        _ = tables[other, default: ClaimTable()].claim(
            "\(content)", by: node, offset: pulls[content][node].bytes, upstreamRate: setup.upstreamRate,
            current: current, now: now)
    }
}
