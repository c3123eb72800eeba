import NIOCore
import OCIDistribution
import PeerRouting
import Testing

@testable import MirrorServer

@Suite struct PeerStatsTests {
    private let digest = Digest.hash(of: "a".utf8)
    private let other = Digest.hash(of: "b".utf8)

    private func rank(_ stats: PeerStats, _ peer: PeerEndpoint, _ time: Int64 = 0) -> Int {
        if case .eligible(let rank) = stats.eligibility(of: peer, for: digest, now: at(time)) { rank } else { .max }
    }

    @Test func theLeastUsedThenTheFasterIsPreferred() throws {
        let (a, b) = (try endpoint(1), try endpoint(2))
        var stats = PeerStats()
        stats.requestStarted(a, now: at(0))
        #expect(rank(stats, b) < rank(stats, a))
        stats.requestEnded(a, now: at(0))
        stats.recordLatency(a, .milliseconds(20), now: at(0))
        stats.recordLatency(b, .milliseconds(5), now: at(0))
        #expect(rank(stats, b) < rank(stats, a))
    }

    @Test func busyAndBrokenPeersArePreferredLessForAWhile() throws {
        let (a, b) = (try endpoint(1), try endpoint(2))
        var stats = PeerStats()
        for _ in 0..<50 { stats.requestStarted(b, now: at(0)) }
        stats.recordFailure(a, .busy, now: at(0))
        #expect(rank(stats, a, 4999) > rank(stats, b, 4999))
        #expect(rank(stats, a, 5000) < rank(stats, b, 5000))
    }

    @Test func whoIsInTroubleAgainAndAgainIsPreferredLessForLonger() throws {
        let a = try endpoint(1)
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
        stats.recordCompletion(a, isVerified: true, now: at(400_000))
        stats.recordFailure(a, .slow, now: at(400_000))
        #expect(stats.isDeprioritized(a, now: at(404_999)) && !stats.isDeprioritized(a, now: at(405_000)))
    }

    @Test func aLiarIsNotAskedAgainForTheSameContentAndAfterRepeatedOffencesForNothing() throws {
        let a = try endpoint(1)
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
        let a = try endpoint(1)
        var stats = PeerStats()
        for text in ["1", "2", "3", "4"] {
            stats.recordMismatch(a, digest: Digest.hash(of: text.utf8), isProven: false, now: at(0))
        }
        #expect(stats.eligibility(of: a, for: digest, now: at(1)) != .excluded)
        #expect(stats.eligibility(of: a, for: Digest.hash(of: "1".utf8), now: at(1)) == .excluded)
    }

    @Test func aPeerWithoutConnectionsIsDialledOnceForEveryone() throws {
        let a = try endpoint(1)
        var stats = PeerStats()
        #expect(stats.mayDial(a, isUrgent: true, now: at(0)) == .dial)
        #expect(stats.mayDial(a, isUrgent: true, now: at(0)) == .wait)
        stats.dialEnded(a, succeeded: true, now: at(1))
        #expect(stats.mayDial(a, isUrgent: false, now: at(1)) == .dial)
        #expect(stats.mayDial(a, isUrgent: false, now: at(1)) == .dial)
    }

    @Test func aPeerThatIsDownIsLeftAloneForGrowingPauses() throws {
        let a = try endpoint(1)
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
        let used = try endpoint(255)
        stats.requestStarted(used, now: at(0))
        for number in 0..<(PeerStats.peerLimit + 500) {
            var seed = [UInt8](repeating: 0, count: 34)
            (seed[0], seed[1]) = (0x12, 0x20)
            for index in 0..<4 { seed[2 + index] = UInt8(truncatingIfNeeded: number >> (index * 8)) }
            stats.recordLatency(
                PeerEndpoint(id: try PeerID(bytes: seed), address: .loopbackV4), .milliseconds(1),
                now: at(Int64(number)))
        }
        #expect(stats.count <= PeerStats.peerLimit)
        #expect(stats.inUse(used) == 1)
        for number in 0..<(PeerStats.exclusionLimit + 100) {
            stats.recordMismatch(used, digest: Digest.hash(of: "\(number)".utf8), isProven: false, now: at(0))
        }
        #expect(stats.eligibility(of: used, for: Digest.hash(of: "0".utf8), now: at(0)) != .excluded)
    }

    @Test func whatAnAddressWasClaimedForCountsAgainstThatClaimOnly() throws {
        let (honest, claimed) = (try endpoint(1), try endpoint(1, .v4(0x7f09_0009)))
        var stats = PeerStats()
        for time in 0..<3 {
            stats.recordMismatch(
                claimed, digest: Digest.hash(of: "\(time)".utf8), isProven: true, now: at(Int64(time)))
        }
        stats.recordFailure(claimed, .slow, isObserved: false, now: at(3))
        stats.dialEnded(claimed, succeeded: false, now: at(3))
        #expect(stats.eligibility(of: claimed, for: digest, now: at(4)) == .excluded)
        #expect(rank(stats, honest, 4) < 10_000)
        #expect(stats.mayDial(honest, isUrgent: false, now: at(4)) == .dial)
    }

    @Test func newIdentitiesAtAnAddressThatFailedAreDeprioritizedUntilOneIsProven() throws {
        let address = IPAddress.v4(0x7f09_0009)
        let (first, second, observed) = (try endpoint(1, address), try endpoint(2, address), try endpoint(3, address))
        var stats = PeerStats()
        stats.recordFailure(first, .absent, isObserved: false, now: at(0))
        #expect(stats.isDeprioritized(second, isObserved: false, now: at(1)))
        #expect(!stats.isDeprioritized(observed, isObserved: true, now: at(1)))
        stats.recordCompletion(second, isVerified: true, now: at(2))
        #expect(!stats.isDeprioritized(second, isObserved: false, now: at(3)))
        #expect(!stats.isDeprioritized(try endpoint(4, address), isObserved: false, now: at(5000)))
    }

    @Test func provenPeersComeBeforeObservedOnesAndThoseBeforeClaimedOnes() throws {
        let (proven, observed, claimed) = (try endpoint(1), try endpoint(2), try endpoint(3))
        var stats = PeerStats()
        stats.recordLatency(proven, .milliseconds(400), now: at(0))
        stats.recordCompletion(proven, isVerified: true, now: at(0))
        func rank(_ peer: PeerEndpoint, _ isObserved: Bool) -> Int {
            if case .eligible(let rank) = stats.eligibility(of: peer, for: digest, isObserved: isObserved, now: at(1)) {
                rank
            } else {
                .max
            }
        }
        #expect(rank(proven, false) < rank(observed, true) && rank(observed, true) < rank(claimed, false))
        // But a proven one that is busy does not get everything.
        for _ in 0..<4 { stats.requestStarted(proven, now: at(1)) }
        #expect(rank(claimed, false) < rank(proven, false))
    }

    @Test func repeatedAbsenceCountsMoreAgainstAPeerThatNeverDelivered() throws {
        let (proven, unknown) = (try endpoint(1), try endpoint(2))
        var stats = PeerStats()
        stats.recordCompletion(proven, isVerified: true, now: at(0))
        for time in [0, 2000, 4000] as [Int64] {
            stats.recordFailure(proven, .absent, now: at(time))
            stats.recordFailure(unknown, .absent, now: at(time))
        }
        #expect(!stats.isDeprioritized(proven, now: at(9001)))
        #expect(stats.isDeprioritized(unknown, now: at(9001)))
    }

    @Test func aPeerThatStalledIsNotAskedForTheSameContentForAMinute() throws {
        let a = try endpoint(1)
        var stats = PeerStats()
        stats.recordStall(a, digest: digest, now: at(0))
        #expect(stats.eligibility(of: a, for: digest, now: at(59_999)) == .excluded)
        #expect(stats.eligibility(of: a, for: other, now: at(1)) != .excluded)
        #expect(stats.eligibility(of: a, for: digest, now: at(60_000)) != .excluded)
    }
}
