import OCIDistribution
import PeerRouting
import Testing

@testable import MirrorServer

@Suite struct TransferPlanTests {
    private let digest = Digest.hash(of: "content".utf8)

    private func plan(
        _ wanted: TransferPlan.Wanted = .whole, tag: Bool = false, isManifest: Bool = false, isHead: Bool = false,
        size: Int64? = nil
    ) -> TransferPlan {
        TransferPlan(
            wanted: wanted,
            expectation: .init(digest: tag ? nil : digest, isManifest: isManifest, isHead: isHead, size: size))
    }

    private func head(
        _ status: Int, length: Int64? = nil, range: String? = nil, type: String? = nil, digest: String? = nil
    ) -> PeerResponseHead {
        var head = PeerResponseHead(status: status)
        head.contentLength = length
        head.contentRange = range
        head.contentType = type
        head.digest = digest
        return head
    }

    @Test func aWholeBodyIsTaken() {
        var plan = plan()
        #expect(plan.nextRange == nil)
        let verdict = plan.judge(head(200, length: 100, digest: "\(digest)"))
        #expect(verdict == .accept(.init(total: 100, body: 0..<100, digest: digest)))
        plan.begin(.init(total: 100, body: 0..<100, digest: digest))
        #expect(plan.coversWhole)
        #expect(plan.received(60) == (0, 60))
        #expect(!plan.isComplete)
        #expect(plan.received(40) == (0, 40))
        #expect(plan.isComplete)
        #expect(!plan.hasSurplus)
    }

    @Test func aBrokenTransferIsCarriedOnFromTheExactByte() {
        var plan = plan()
        plan.begin(.init(total: 100, body: 0..<100, digest: digest))
        _ = plan.received(33)
        #expect(plan.nextRange == .bounded(first: 33, last: 99))
        #expect(
            plan.judge(head(206, length: 67, range: "bytes 33-99/100"))
                == .accept(.init(total: 100, body: 33..<100, digest: digest)))
        plan.begin(.init(total: 100, body: 33..<100, digest: digest))
        #expect(plan.received(67) == (0, 67))
        #expect(plan.isComplete)
    }

    @Test(arguments: [
        ("bytes 33-99/101", 67), ("bytes 34-99/100", 66), ("bytes 33-98/100", 66), ("bytes 0-99/100", 100),
        ("bytes 33-99/*", 66), ("bytes */100", 67), ("", 67), ("33-99/100", 67), ("bytes 33-99/100", 68),
    ])
    func anAnswerThatDoesNotFitIsNotTaken(range: String, length: Int64) {
        var plan = plan()
        plan.begin(.init(total: 100, body: 0..<100, digest: digest))
        _ = plan.received(33)
        guard case .reject = plan.judge(head(206, length: length, range: range)) else {
            Issue.record("\(range) was taken")
            return
        }
    }

    @Test func aWholeBodyInPlaceOfARangeIsSkippedOverOrRefused() {
        var plan = plan()
        plan.begin(.init(total: 100, body: 0..<100, digest: digest))
        _ = plan.received(33)
        #expect(plan.judge(head(200, length: 100)) == .accept(.init(total: 100, body: 0..<100, digest: digest)))
        #expect(plan.judge(head(200, length: 99)) == .reject(.wrongLength(expected: 100, got: 99)))
        plan.begin(.init(total: 100, body: 0..<100, digest: digest))
        #expect(plan.received(20) == (20, 0))
        #expect(plan.received(20) == (13, 7))
        #expect(plan.received(60) == (0, 60))
        #expect(plan.isComplete)

        var far = self.plan()
        let size = TransferPlan.skipLimit * 2
        far.begin(.init(total: size, body: 0..<size, digest: digest))
        _ = far.received(Int(TransferPlan.skipLimit) + 1)
        #expect(far.judge(head(200, length: size)) == .reject(.ignoresRange))
    }

    @Test func aRangeInTheMiddleEndsBeforeTheBodyThatIgnoredIt() {
        var plan = plan(.range(.bounded(first: 10, last: 19)))
        #expect(plan.nextRange == .bounded(first: 10, last: 19))
        guard case .accept(let acceptance) = plan.judge(head(200, length: 100)) else {
            Issue.record("not taken")
            return
        }
        plan.begin(acceptance)
        #expect(!plan.coversWhole)
        #expect(plan.received(50) == (10, 10))
        #expect(plan.isComplete && plan.hasSurplus)
    }

    @Test func rangesOfTheClientAreResolvedAgainstTheSize() {
        var suffix = plan(.range(.suffix(10)))
        guard case .accept(let acceptance) = suffix.judge(head(206, length: 10, range: "bytes 90-99/100")) else {
            Issue.record("not taken")
            return
        }
        suffix.begin(acceptance)
        #expect(suffix.range == 90..<100)
        _ = suffix.received(4)
        #expect(suffix.nextRange == .bounded(first: 94, last: 99))
        #expect(!suffix.coversWhole)

        var open = plan(.range(.from(0)))
        open.begin(.init(total: 100, body: 0..<100, digest: digest))
        #expect(open.coversWhole)
    }

    @Test func aRangeOutsideIsToldOnlyWhenItIs() {
        let plan = plan(.range(.from(200)))
        #expect(plan.judge(head(416, range: "bytes */100")) == .unsatisfiable(size: 100))
        #expect(plan.judge(head(416, range: "bytes */300")) == .reject(.status(416)))
        #expect(plan.judge(head(416)) == .reject(.status(416)))
        #expect(plan.judge(head(200, length: 100)) == .unsatisfiable(size: 100))
        #expect(self.plan().judge(head(416, range: "bytes */100")) == .reject(.status(416)))
    }

    @Test func answersWithoutLengthOrWithCodedBodiesAreNotTaken() {
        #expect(plan().judge(head(200)) == .reject(.noLength))
        var coded = head(200, length: 3)
        coded.isContentEncoded = true
        #expect(plan().judge(coded) == .reject(.encoded))
        coded = head(200)
        coded.isTransferEncoded = true
        #expect(plan().judge(coded) == .reject(.encoded))
    }

    @Test func aStatedDigestHasToBeTheRightOne() {
        let other = Digest.hash(of: "other".utf8)
        #expect(plan().judge(head(200, length: 3, digest: "\(other)")) == .reject(.wrongDigest("\(other)")))
        #expect(plan().judge(head(200, length: 3, digest: "nonsense")) == .reject(.wrongDigest("nonsense")))
        let type = MediaType.imageManifest.rawValue
        let tag = plan(tag: true, isManifest: true)
        #expect(tag.judge(head(200, length: 3, type: type)) == .reject(.noDigest))
        #expect(
            tag.judge(head(200, length: 3, type: type, digest: "\(other)"))
                == .accept(.init(total: 3, body: 0..<3, digest: other)))
    }

    @Test func aTagThatMovesIsNotMixed() {
        let (one, two) = (Digest.hash(of: "1".utf8), Digest.hash(of: "2".utf8))
        let type = MediaType.imageManifest.rawValue
        var plan = plan(tag: true, isManifest: true)
        plan.begin(.init(total: 10, body: 0..<10, digest: one))
        _ = plan.received(5)
        let answer = head(206, length: 5, range: "bytes 5-9/10", type: type, digest: "\(two)")
        #expect(plan.judge(answer) == .reject(.wrongDigest("\(two)")))
        plan.restart()
        guard case .accept = plan.judge(head(200, length: 10, type: type, digest: "\(two)")) else {
            Issue.record("not taken after a restart")
            return
        }
    }

    @Test func manifestsHaveToBeManifests() {
        let plan = plan(isManifest: true)
        #expect(plan.judge(head(200, length: 3, type: "text/html")) == .reject(.wrongType("text/html")))
        #expect(plan.judge(head(200, length: 3)) == .reject(.wrongType("")))
        guard case .accept = plan.judge(head(200, length: 3, type: "\(MediaType.imageIndex); charset=utf-8")) else {
            Issue.record("an index was not taken")
            return
        }
    }

    @Test func aKnownSizeHasToBeMet() {
        #expect(plan(size: 10).judge(head(200, length: 9)) == .reject(.wrongLength(expected: 10, got: 9)))
    }

    /// What never ends is never found to be wrong, so that its peer could do it again.
    @Test func anUnknownSizeIsBounded() {
        let (limit, absurd) = (TransferPlan.largestBlob, Int64(999_999_999_999_999_999))
        guard case .accept = plan().judge(head(200, length: limit)) else {
            Issue.record("the largest blob was not taken")
            return
        }
        #expect(plan().judge(head(200, length: limit + 1)) == .reject(.tooLarge(limit + 1)))
        #expect(plan().judge(head(200, length: absurd)) == .reject(.tooLarge(absurd)))
        // What a verified manifest says counts.
        guard case .accept = plan(size: limit + 1).judge(head(200, length: limit + 1)) else {
            Issue.record("a blob of the size that its manifest names was not taken")
            return
        }
        let manifest = head(200, length: 4 << 20 + 1, type: "\(MediaType.imageIndex)")
        #expect(plan(isManifest: true).judge(manifest) == .reject(.tooLarge(4 << 20 + 1)))
        var part = plan()
        part.begin(.init(total: 10, body: 0..<10, digest: digest))
        part.restart()
        #expect(part.judge(head(200, length: absurd)) == .reject(.tooLarge(absurd)))
    }

    @Test(arguments: [404, 401, 403, 500, 301, 204, 304])
    func otherStatusesAreNotTaken(status: Int) {
        #expect(plan().judge(head(status, length: 3)) == .reject(.status(status)))
    }

    @Test(arguments: [429, 503]) func busyPeersAreTold(status: Int) {
        #expect(plan().judge(head(status)) == .busy)
    }

    /// However bodies are cut, broken off and carried on: what is delivered is the wanted range, each byte once.
    @Test(arguments: 0..<200)
    func anyCutsDeliverTheRangeOnce(seed: Int) {
        var random = SplitMix64(seed: UInt64(seed))
        let size = Int64.random(in: 1...500, using: &random)
        let wanted: ByteRange? =
            [
                nil, .from(Int64.random(in: 0..<size, using: &random)),
                .suffix(Int64.random(in: 1...size, using: &random)),
            ].randomElement(using: &random) ?? nil
        var plan = plan(wanted.map { .range($0) } ?? .whole)
        var delivered: [Int64] = []
        for _ in 0..<1000 where !plan.isComplete || plan.range == nil {
            let asked = plan.nextRange
            let ignores = Bool.random(using: &random)
            let body = ignores ? 0..<size : asked.flatMap { try? $0.resolve(size: size) } ?? 0..<size
            let answer =
                ignores || asked == nil
                ? head(200, length: size)
                : head(
                    206, length: Int64(body.count), range: "bytes \(body.lowerBound)-\(body.upperBound - 1)/\(size)")
            guard case .accept(let acceptance) = plan.judge(answer) else {
                Issue.record("not taken: \(answer)")
                return
            }
            plan.begin(acceptance)
            var position = body.lowerBound
            while position < body.upperBound, Int.random(in: 0..<6, using: &random) > 0, !plan.isComplete {
                let count = Int64.random(in: 1...min(60, body.upperBound - position), using: &random)
                let (skip, deliver) = plan.received(Int(count))
                for index in 0..<Int64(deliver) { delivered.append(position + Int64(skip) + index) }
                position += count
            }
        }
        #expect(plan.isComplete)
        #expect(plan.range.map { delivered == Array($0) } ?? false)
    }
}
