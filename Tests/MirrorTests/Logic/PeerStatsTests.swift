import NIOCore
import OCIDistribution
import PeerRouting
import Testing

@testable import MirrorServer

@Suite struct PeerScoreboardTests {
    private let digest = Digest.hash(of: "a".utf8)
    private let other = Digest.hash(of: "b".utf8)

    private func rank(_ board: PeerScoreboard, _ peer: PeerID, _ time: Int64 = 0) -> Int {
        if case .eligible(let rank) = board.standing(of: peer, for: digest, now: at(time)) { rank } else { .max }
    }

    @Test func theLeastUsedThenTheFasterIsPreferred() throws {
        let (a, b) = (try peer(1).id, try peer(2).id)
        var board = PeerScoreboard()
        board.began(a, now: at(0))
        #expect(rank(board, b) < rank(board, a))
        board.ended(a, now: at(0))
        board.answered(a, after: .milliseconds(20), now: at(0))
        board.answered(b, after: .milliseconds(5), now: at(0))
        #expect(rank(board, b) < rank(board, a))
    }

    @Test func busyAndBrokenPeersArePreferredLessForAWhile() throws {
        let (a, b) = (try peer(1).id, try peer(2).id)
        var board = PeerScoreboard()
        for _ in 0..<50 { board.began(b, now: at(0)) }
        board.penalise(a, .busy, now: at(0))
        #expect(rank(board, a, 4999) > rank(board, b, 4999))
        #expect(rank(board, a, 5000) < rank(board, b, 5000))
    }

    @Test func whoIsInTroubleAgainAndAgainIsPreferredLessForLonger() throws {
        let a = try peer(1).id
        var board = PeerScoreboard()
        board.penalise(a, .slow, now: at(0))
        // Another transfer that the same trouble ended.
        board.penalise(a, .brokeOff, now: at(500))
        #expect(board.isPenalised(a, now: at(5499)) && !board.isPenalised(a, now: at(5500)))
        board.penalise(a, .slow, now: at(6000))
        #expect(board.isPenalised(a, now: at(15_999)) && !board.isPenalised(a, now: at(16_000)))
        // Being busy is no trouble, and takes nothing away.
        board.penalise(a, .busy, now: at(6001))
        #expect(board.isPenalised(a, now: at(15_999)) && !board.isPenalised(a, now: at(16_000)))
        for time in 0..<20 { board.penalise(a, .slow, now: at(20_000 + Int64(time) * 1000)) }
        #expect(board.isPenalised(a, now: at(39_000 + 299_999)) && !board.isPenalised(a, now: at(39_000 + 300_000)))
        board.completed(a, now: at(400_000))
        board.penalise(a, .slow, now: at(400_000))
        #expect(board.isPenalised(a, now: at(404_999)) && !board.isPenalised(a, now: at(405_000)))
    }

    @Test func aLiarIsNotAskedAgainForTheSameContentAndAfterRepeatedOffencesForNothing() throws {
        let a = try peer(1).id
        var board = PeerScoreboard()
        board.blame(a, for: digest, alone: true, now: at(0))
        #expect(board.standing(of: a, for: digest, now: at(1)) == .excluded)
        #expect(board.standing(of: a, for: other, now: at(1)) != .excluded)
        board.blame(a, for: other, alone: true, now: at(1))
        board.blame(a, for: Digest.hash(of: "c".utf8), alone: true, now: at(2))
        #expect(board.standing(of: a, for: Digest.hash(of: "d".utf8), now: at(3)) == .excluded)
        #expect(board.standing(of: a, for: digest, now: at(601_000)) != .excluded)
    }

    @Test func whoeverOnlyHelpedIsNotAnOffender() throws {
        let a = try peer(1).id
        var board = PeerScoreboard()
        for text in ["1", "2", "3", "4"] { board.blame(a, for: Digest.hash(of: text.utf8), alone: false, now: at(0)) }
        #expect(board.standing(of: a, for: digest, now: at(1)) != .excluded)
        #expect(board.standing(of: a, for: Digest.hash(of: "1".utf8), now: at(1)) == .excluded)
    }

    @Test func aPeerWithoutConnectionsIsDialledOnceForEveryone() throws {
        let a = try peer(1).id
        var board = PeerScoreboard()
        #expect(board.mayDial(a, urgent: true, now: at(0)) == .go)
        #expect(board.mayDial(a, urgent: true, now: at(0)) == .wait)
        board.dialEnded(a, succeeded: true, now: at(1))
        #expect(board.mayDial(a, urgent: false, now: at(1)) == .go)
        #expect(board.mayDial(a, urgent: false, now: at(1)) == .go)
    }

    @Test func aPeerThatIsDownIsLeftAloneForGrowingPauses() throws {
        let a = try peer(1).id
        var board = PeerScoreboard()
        var now: Int64 = 0
        for pause in [500, 1000, 2000, 4000, 8000, 15_000, 15_000] as [Int64] {
            #expect(board.mayDial(a, urgent: false, now: at(now)) == .go)
            board.dialEnded(a, succeeded: false, now: at(now))
            #expect(board.mayDial(a, urgent: false, now: at(now + pause - 1)) == .down)
            #expect(rank(board, a, now + pause - 1) >= 100_000_000)
            now += pause
        }
        // Nobody can replace it: a second is enough.
        #expect(board.mayDial(a, urgent: false, now: at(now)) == .go)
        board.dialEnded(a, succeeded: false, now: at(now))
        #expect(board.mayDial(a, urgent: true, now: at(now + 999)) == .down)
        #expect(board.mayDial(a, urgent: true, now: at(now + 1000)) == .go)
        board.dialEnded(a, succeeded: true, now: at(now + 1001))
        #expect(rank(board, a, now + 1001) < 1_000_000)
    }

    @Test func itForgetsBeforeItGrows() throws {
        var board = PeerScoreboard()
        let used = try peer(255).id
        board.began(used, now: at(0))
        for number in 0..<(PeerScoreboard.peerLimit + 500) {
            var seed = [UInt8](repeating: 0, count: 34)
            (seed[0], seed[1]) = (0x12, 0x20)
            for index in 0..<4 { seed[2 + index] = UInt8(truncatingIfNeeded: number >> (index * 8)) }
            board.answered(try PeerID(bytes: seed), after: .milliseconds(1), now: at(Int64(number)))
        }
        #expect(board.count <= PeerScoreboard.peerLimit)
        #expect(board.inUse(used) == 1)
        for number in 0..<(PeerScoreboard.blameLimit + 100) {
            board.blame(used, for: Digest.hash(of: "\(number)".utf8), alone: false, now: at(0))
        }
        #expect(board.standing(of: used, for: Digest.hash(of: "0".utf8), now: at(0)) != .excluded)
    }
}
