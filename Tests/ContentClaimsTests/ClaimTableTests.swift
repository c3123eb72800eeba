import NIOCore
import PeerRoutingCore
import Testing

@testable import ContentClaims

@Suite struct ClaimTableTests {
    private static func at(_ seconds: Double) -> NIODeadline {
        .uptimeNanoseconds(1_000_000_000 + UInt64(seconds * 1e9))
    }

    private var table = ClaimTable<Int>()

    @Test mutating func theFirstLeadsAndTheOthersFollow() {
        #expect(table.claim("a", by: 1, offset: 0, now: Self.at(0)) == .lead)
        for member in 2...5 { #expect(table.claim("a", by: member, offset: 0, now: Self.at(0)) == .follow(1)) }
        // Its fan-out is used up.
        guard case .follow(let parent) = table.claim("a", by: 6, offset: 0, now: Self.at(0)) else {
            Issue.record("no parent")
            return
        }
        #expect((2...5).contains(parent))
        // Another content has a leader of its own.
        #expect(table.claim("b", by: 6, offset: 0, now: Self.at(0)) == .lead)
        // Who asks again is told the same.
        #expect(table.claim("a", by: 1, offset: 0, now: Self.at(1)) == .lead)
        #expect(table.claim("a", by: 2, offset: 0, now: Self.at(1)) == .follow(1))
    }

    @Test mutating func aLeaseLapsesWithoutGrowth() {
        #expect(table.claim("a", by: 1, offset: 0, now: Self.at(0)) == .lead)
        table.report(.arriving(bytes: 10), of: "a", by: 1, now: Self.at(1.5))
        #expect(table.claim("a", by: 2, offset: 0, now: Self.at(3)) == .follow(1))
        // Without growth, reports renew it for a while.
        for time in stride(from: 3.0, through: 16, by: 1) {
            table.report(.arriving(bytes: 10), of: "a", by: 1, now: Self.at(time))
            table.report(.arriving(bytes: UInt64(time)), of: "a", by: 2, now: Self.at(time))
        }
        #expect(table.claim("a", by: 3, offset: 0, now: Self.at(16.5)) == .lead)
        // The new leader has the follower of the old one.
        #expect(table.claim("a", by: 2, offset: 5, failedParent: 1, now: Self.at(16.7)) == .follow(3))
        #expect(table.claim("a", by: 1, offset: 10, now: Self.at(16.8)) == .follow(3))
    }

    @Test mutating func oneChildOfADeadLeaderLeads() {
        _ = table.claim("a", by: 1, offset: 0, now: Self.at(0))
        for member in 2...20 { _ = table.claim("a", by: member, offset: 0, now: Self.at(0)) }
        let answers = (2...5).map { table.claim("a", by: $0, offset: 100, failedParent: 1, now: Self.at(1)) }
        #expect(answers.count { $0 == .lead } == 1)
        #expect(!answers.contains(.unknown))
        let all = (2...20).map { table.claim("a", by: $0, offset: 100, now: Self.at(1.5)) }
        #expect(all.count { $0 == .lead } == 1)
        #expect(!all.contains(.unknown) && !all.contains(.follow(1)))
    }

    @Test mutating func aCompleteCopyIsFollowedForAWhile() {
        _ = table.claim("a", by: 1, offset: 0, now: Self.at(0))
        table.report(.complete, of: "a", by: 1, now: Self.at(1))
        #expect(table.claim("a", by: 2, offset: 0, now: Self.at(20)) == .follow(1))
        // The provider record says it from then on.
        table.expire(now: Self.at(40))
        #expect(table.count == 0)
    }

    @Test mutating func whoFailedIsForgotten() {
        _ = table.claim("a", by: 1, offset: 0, now: Self.at(0))
        table.report(.failed, of: "a", by: 1, now: Self.at(0.5))
        #expect(table.count == 0)
        #expect(table.claim("a", by: 2, offset: 0, now: Self.at(0.6)) == .lead)
        // What was not claimed is ignored.
        table.report(.complete, of: "a", by: 3, now: Self.at(0.7))
        table.report(.complete, of: "b", by: 3, now: Self.at(0.7))
        #expect(table.claimantCount(of: "a") == 1)
        #expect(table.count == 1)
    }

    @Test mutating func nobodyBringsDownAnothersParent() {
        _ = table.claim("a", by: 1, offset: 0, now: Self.at(0))
        for member in 2...5 { _ = table.claim("a", by: member, offset: 0, now: Self.at(0)) }
        // 9 does not follow 1, and one child of several is not enough.
        for _ in 0..<5 { _ = table.claim("a", by: 9, offset: 0, failedParent: 1, now: Self.at(0.1)) }
        for _ in 0..<5 { _ = table.claim("a", by: 2, offset: 0, failedParent: 1, now: Self.at(0.1)) }
        #expect(table.claim("a", by: 1, offset: 0, now: Self.at(0.2)) == .lead)
        #expect(table.claim("a", by: 3, offset: 0, now: Self.at(0.2)) == .follow(1))
    }

    @Test mutating func aSecondLeaderWhereTheFirstIsSlow() {
        _ = table.claim("a", by: 1, offset: 0, now: Self.at(0))
        for second in 1...11 {
            table.report(.arriving(bytes: UInt64(second) * 1000), of: "a", by: 1, now: Self.at(Double(second)))
        }
        #expect(table.claim("a", by: 2, offset: 0, upstreamRate: 3000, now: Self.at(11)) == .follow(1))
        #expect(table.claim("a", by: 3, offset: 0, upstreamRate: 100_000, now: Self.at(11)) == .lead)
        // There is no third.
        for member in 4...9 {
            #expect(table.claim("a", by: member, offset: 0, upstreamRate: 1_000_000, now: Self.at(11.1)) != .lead)
        }
    }

    @Test mutating func whoLapsesAgainAndAgainGetsNoLead() {
        for round in 0..<3 {
            #expect(table.claim("\(round)", by: 1, offset: 0, now: Self.at(Double(round) * 3)) == .lead)
        }
        table.expire(now: Self.at(9))
        #expect(table.claim("x", by: 1, offset: 0, now: Self.at(10)) == .unknown)
        #expect(table.claim("x", by: 2, offset: 0, now: Self.at(10)) == .lead)
        #expect(table.claim("x", by: 1, offset: 0, now: Self.at(10)) == .follow(2))
        #expect(table.claim("y", by: 1, offset: 0, now: Self.at(80)) == .lead)
    }

    @Test mutating func anotherArbiterIsToldWhatIsGoingOn() {
        // Followers first: nobody leads because of them.
        #expect(table.claim("a", by: 3, offset: 5, current: .following(2), now: Self.at(0)) == .unknown)
        #expect(table.claim("a", by: 2, offset: 6, current: .following(1), now: Self.at(0)) == .unknown)
        #expect(table.claim("a", by: 1, offset: 7, current: .leading, now: Self.at(0)) == .lead)
        let isKnown = table.report(.arriving(bytes: 8), of: "a", by: 2, now: Self.at(0.5))
        #expect(!isKnown)
        #expect(table.claim("a", by: 2, offset: 6, current: .following(1), now: Self.at(0.5)) == .follow(1))
        #expect(table.claim("a", by: 3, offset: 5, current: .following(2), now: Self.at(0.5)) == .follow(2))
        let isKnownNow = table.report(.arriving(bytes: 8), of: "a", by: 3, now: Self.at(1))
        #expect(isKnownNow)
        // One that has lost its parent waits for a leader that is not known here yet, and not for ever.
        #expect(table.claim("b", by: 1, offset: 9, failedParent: 7, now: Self.at(1)) == .wait)
        #expect(table.claim("b", by: 2, offset: 9, failedParent: 8, now: Self.at(1.4)) == .wait)
        #expect(table.claim("b", by: 3, offset: 9, current: .leading, now: Self.at(1.6)) == .lead)
        #expect(table.claim("b", by: 2, offset: 9, failedParent: 8, now: Self.at(1.9)) == .follow(3))
        #expect(table.claim("c", by: 1, offset: 9, failedParent: 7, now: Self.at(1)) == .wait)
        #expect(table.claim("c", by: 1, offset: 9, failedParent: 7, now: Self.at(2.6)) == .lead)
        // Nobody follows itself.
        #expect(table.claim("a", by: 5, offset: 6, current: .following(5), now: Self.at(1)) == .unknown)
        #expect(table.claim("a", by: 4, offset: 0, now: Self.at(1)) == .follow(1))
    }

    /// A claimant with others below it finds a place where the tree has none within its limits.
    @Test func aSubtreeIsMovedAsAWhole() {
        var limits = ClaimTable<Int>.Limits()
        (limits.fanOut, limits.depth) = (2, 3)
        var table = ClaimTable<Int>(limits: limits)
        for member in 1...15 { _ = table.claim("a", by: member, offset: 0, now: Self.at(0)) }
        for member in [2, 3] {
            let answer = table.claim("a", by: member, offset: 9, failedParent: 1, now: Self.at(1))
            #expect(answer != .unknown)
        }
        let tree = table.tree(of: "a")
        #expect(tree.values.count { $0.isLeader } == 1)
        #expect(tree.count == 14)
    }

    @Test func everythingIsBounded() {
        var limits = ClaimTable<Int>.Limits()
        (limits.contents, limits.claimants, limits.rememberedLapses) = (10, 20, 5)
        var table = ClaimTable<Int>(limits: limits)
        for key in 0..<100 {
            for member in 0..<30 { _ = table.claim("\(key)", by: member, offset: 0, now: Self.at(0)) }
            #expect(table.claimantCount(of: "\(key)") == 20)
        }
        #expect(table.count == 10)
        table.expire(now: Self.at(5))
        #expect(table.count == 0)
        // All contents together.
        (limits.contents, limits.total) = (1000, 50)
        var other = ClaimTable<Int>(limits: limits)
        for key in 0..<100 {
            for member in 0..<20 { _ = other.claim("\(key)", by: member, offset: 0, now: Self.at(0)) }
        }
        #expect((0..<100).reduce(0) { $0 + other.claimantCount(of: "\($1)") } <= 50)
        #expect(other.claimantCount(of: "99") == 20)
    }

    /// Whatever happens, the tree is one: no cycle, no more children and steps than allowed, at most one leader more than
    /// there should be.
    @Test(arguments: 1...20) func theTreeIsATree(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var limits = ClaimTable<Int>.Limits()
        (limits.fanOut, limits.depth) = (2, 4)
        var table = ClaimTable<Int>(limits: limits)
        var told: [Int: ClaimTable<Int>.Answer] = [:]
        var bytes: [Int: UInt64] = [:]
        var time = 0.0
        for _ in 0..<3000 {
            time += random.fraction() * 0.05
            let member = Int(random.next() % 24)
            switch random.next() % 10 {
            case 0..<4:
                var failed: Int?
                if case .follow(let parent)? = told[member], random.next() % 3 == 0 { failed = parent }
                let answer = table.claim(
                    "a", by: member, offset: bytes[member] ?? 0, failedParent: failed,
                    upstreamRate: random.next() % 1000, now: Self.at(time))
                if let failed { #expect(answer != .follow(failed)) }
                #expect(answer != .follow(member))
                told[member] = answer
            case 4..<9:
                bytes[member, default: 0] += random.next() % 100
                table.report(.arriving(bytes: bytes[member] ?? 0), of: "a", by: member, now: Self.at(time))
            default:
                table.report(random.next() % 4 == 0 ? .complete : .failed, of: "a", by: member, now: Self.at(time))
            }
            let tree = table.tree(of: "a")
            for (member, node) in tree {
                var (current, steps) = (member, 0)
                while let parent = tree[current]?.parent, steps <= tree.count { (current, steps) = (parent, steps + 1) }
                // Twice as much where a subtree has to be moved.
                #expect(steps <= limits.depth * 2, "\(member) at \(time)")
                #expect(tree.values.count { $0.parent == member } == node.children)
                #expect(node.children <= limits.fanOut * 2)
            }
            #expect(tree.values.count { $0.isLeader } <= limits.leaders + 1)
        }
    }
}
