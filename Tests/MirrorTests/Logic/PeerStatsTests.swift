import NIOCore
import OCIDistribution
import PeerRouting
import Testing

@testable import MirrorServer

@Suite struct PeerStatsTests {
    private let digest = Digest.hash(of: "a".utf8)
    private let other = Digest.hash(of: "b".utf8)

    private func rank(_ stats: PeerStats, _ peer: PeerID, _ time: Int64 = 0) -> Int {
        if case .eligible(let rank) = stats.eligibility(of: peer, for: digest, now: at(time)) { rank } else { .max }
    }

    @Test func theLeastUsedThenTheFasterIsPreferred() throws {
        let (a, b) = (try peer(1).id, try peer(2).id)
        var stats = PeerStats()
        stats.requestStarted(a, now: at(0))
        #expect(rank(stats, b) < rank(stats, a))
        stats.requestEnded(a, now: at(0))
        stats.recordLatency(a, .milliseconds(20), now: at(0))
        stats.recordLatency(b, .milliseconds(5), now: at(0))
        #expect(rank(stats, b) < rank(stats, a))
    }

    @Test func busyAndBrokenPeersArePreferredLessForAWhile() throws {
        let (a, b) = (try peer(1).id, try peer(2).id)
        var stats = PeerStats()
        for _ in 0..<50 { stats.requestStarted(b, now: at(0)) }
        stats.recordFailure(a, .busy, now: at(0))
        #expect(rank(stats, a, 4999) > rank(stats, b, 4999))
        #expect(rank(stats, a, 5000) < rank(stats, b, 5000))
    }

    @Test func whoIsInTroubleAgainAndAgainIsPreferredLessForLonger() throws {
        let a = try peer(1).id
        var stats = PeerStats()
        stats.recordFailure(a, .slow, now: at(0))
        // Another transfer that the same trouble ended.
        stats.recordFailure(a, .truncated, now: at(500))
        #expect(stats.isDeprioritized(a, now: at(5499)) && !stats.isDeprioritized(a, now: at(5500)))
        stats.recordFailure(a, .slow, now: at(6000))
        #expect(stats.isDeprioritized(a, now: at(15_999)) && !stats.isDeprioritized(a, now: at(16_000)))
        // Being busy is no trouble, and takes nothing away.
        stats.recordFailure(a, .busy, now: at(6001))
        #expect(stats.isDeprioritized(a, now: at(15_999)) && !stats.isDeprioritized(a, now: at(16_000)))
        for time in 0..<20 { stats.recordFailure(a, .slow, now: at(20_000 + Int64(time) * 1000)) }
        #expect(
            stats.isDeprioritized(a, now: at(39_000 + 299_999)) && !stats.isDeprioritized(a, now: at(39_000 + 300_000)))
        stats.recordCompletion(a, now: at(400_000))
        stats.recordFailure(a, .slow, now: at(400_000))
        #expect(stats.isDeprioritized(a, now: at(404_999)) && !stats.isDeprioritized(a, now: at(405_000)))
    }

    @Test func aLiarIsNotAskedAgainForTheSameContentAndAfterRepeatedOffencesForNothing() throws {
        let a = try peer(1).id
        var stats = PeerStats()
        stats.recordMismatch(a, digest: digest, isProven: true, now: at(0))
        #expect(stats.eligibility(of: a, for: digest, now: at(1)) == .excluded)
        #expect(stats.eligibility(of: a, for: other, now: at(1)) != .excluded)
        stats.recordMismatch(a, digest: other, isProven: true, now: at(1))
        stats.recordMismatch(a, digest: Digest.hash(of: "c".utf8), isProven: true, now: at(2))
        #expect(stats.eligibility(of: a, for: Digest.hash(of: "d".utf8), now: at(3)) == .excluded)
        #expect(stats.eligibility(of: a, for: digest, now: at(601_000)) != .excluded)
    }

    @Test func whoeverOnlyHelpedIsNotAnOffender() throws {
        let a = try peer(1).id
        var stats = PeerStats()
        for text in ["1", "2", "3", "4"] {
            stats.recordMismatch(a, digest: Digest.hash(of: text.utf8), isProven: false, now: at(0))
        }
        #expect(stats.eligibility(of: a, for: digest, now: at(1)) != .excluded)
        #expect(stats.eligibility(of: a, for: Digest.hash(of: "1".utf8), now: at(1)) == .excluded)
    }

    @Test func aPeerWithoutConnectionsIsDialledOnceForEveryone() throws {
        let a = try peer(1).id
        var stats = PeerStats()
        #expect(stats.mayDial(a, isUrgent: true, now: at(0)) == .dial)
        #expect(stats.mayDial(a, isUrgent: true, now: at(0)) == .wait)
        stats.dialEnded(a, succeeded: true, now: at(1))
        #expect(stats.mayDial(a, isUrgent: false, now: at(1)) == .dial)
        #expect(stats.mayDial(a, isUrgent: false, now: at(1)) == .dial)
    }

    @Test func aPeerThatIsDownIsLeftAloneForGrowingPauses() throws {
        let a = try peer(1).id
        var stats = PeerStats()
        var now: Int64 = 0
        for pause in [500, 1000, 2000, 4000, 8000, 15_000, 15_000] as [Int64] {
            #expect(stats.mayDial(a, isUrgent: false, now: at(now)) == .dial)
            stats.dialEnded(a, succeeded: false, now: at(now))
            #expect(stats.mayDial(a, isUrgent: false, now: at(now + pause - 1)) == .unreachable)
            #expect(rank(stats, a, now + pause - 1) >= 100_000_000)
            now += pause
        }
        // Nobody can replace it: a second is enough.
        #expect(stats.mayDial(a, isUrgent: false, now: at(now)) == .dial)
        stats.dialEnded(a, succeeded: false, now: at(now))
        #expect(stats.mayDial(a, isUrgent: true, now: at(now + 999)) == .unreachable)
        #expect(stats.mayDial(a, isUrgent: true, now: at(now + 1000)) == .dial)
        stats.dialEnded(a, succeeded: true, now: at(now + 1001))
        #expect(rank(stats, a, now + 1001) < 1_000_000)
    }

    @Test func itForgetsBeforeItGrows() throws {
        var stats = PeerStats()
        let used = try peer(255).id
        stats.requestStarted(used, now: at(0))
        for number in 0..<(PeerStats.peerLimit + 500) {
            var seed = [UInt8](repeating: 0, count: 34)
            (seed[0], seed[1]) = (0x12, 0x20)
            for index in 0..<4 { seed[2 + index] = UInt8(truncatingIfNeeded: number >> (index * 8)) }
            stats.recordLatency(try PeerID(bytes: seed), .milliseconds(1), now: at(Int64(number)))
        }
        #expect(stats.count <= PeerStats.peerLimit)
        #expect(stats.inUse(used) == 1)
        for number in 0..<(PeerStats.mismatchLimit + 100) {
            stats.recordMismatch(used, digest: Digest.hash(of: "\(number)".utf8), isProven: false, now: at(0))
        }
        #expect(stats.eligibility(of: used, for: Digest.hash(of: "0".utf8), now: at(0)) != .excluded)
    }
}
