import NIOCore
import OCIDistribution
import Testing

@testable import MirrorServer

@Suite struct TagVoteTests {
    private let old = Digest.hash(of: "old".utf8)
    private let new = Digest.hash(of: "new".utf8)

    private func vote(_ answers: (number: UInt8, digest: Digest, trust: TagVote.Trust, bodies: Int)...) throws
        -> TagVote
    {
        var vote = TagVote()
        for answer in answers {
            vote.record(
                .init(
                    peer: try endpoint(answer.number), digest: answer.digest, trust: answer.trust,
                    verifiedBodies: answer.bodies))
        }
        return vote
    }

    @Test func theMajorityWins() throws {
        let vote = try vote((1, old, .proven, 9), (2, new, .proven, 1), (3, new, .proven, 1))
        #expect(vote.winner == new)
        #expect(vote.dissenters(from: new) == [try endpoint(1)])
        #expect(TagVote().winner == nil)
    }

    @Test func onlyTheMostTrustedPeersVote() throws {
        #expect(
            try vote((1, old, .claimed, 0), (2, old, .claimed, 0), (3, old, .observed, 0), (4, new, .proven, 1)).winner
                == new)
        #expect(try vote((1, old, .claimed, 0), (2, old, .claimed, 0), (3, new, .observed, 0)).winner == new)
        #expect(try vote((1, old, .claimed, 0), (2, old, .claimed, 0), (3, new, .claimed, 0)).winner == old)
    }

    @Test func anAddressHasOneVote() throws {
        var vote = TagVote()
        let address = try endpoint(1).address
        for number in 1...5 as ClosedRange<UInt8> {
            vote.record(.init(peer: try endpoint(number, address), digest: old, trust: .observed, verifiedBodies: 0))
        }
        for number in [6, 7] as [UInt8] {
            vote.record(.init(peer: try endpoint(number), digest: new, trust: .observed, verifiedBodies: 0))
        }
        #expect(vote.winner == new)
    }

    @Test func amongEqualsThoseThatDeliveredMoreWin() throws {
        #expect(try vote((1, old, .proven, 1), (2, new, .proven, 5)).winner == new)
        #expect(try vote((1, old, .observed, 0), (2, new, .observed, 0)).winner == old)
    }
}
