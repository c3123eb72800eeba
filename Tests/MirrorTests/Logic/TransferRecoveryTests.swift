import Testing

@testable import MirrorServer

@Suite struct TransferRecoveryTests {
    private func recovery(offset: Int64 = 0) -> TransferRecovery {
        TransferRecovery(limits: .init(resumesWithoutProgress: 2, resumeBytes: 100, restarts: 1), offset: offset)
    }

    private func raceFailed(hasBody: Bool, isCachedLookup: Bool = false) -> TransferRecovery.Failure {
        .raceFailed(.exhausted, isCachedLookup: isCachedLookup, hasBody: hasBody)
    }

    @Test func interruptionsWithProgressAreResumedWithoutLimit() {
        var recovery = recovery()
        for step in 1...50 {
            #expect(
                recovery.decide(after: .interrupted(offset: Int64(step) * 100), isHeadSent: true).action == .resume)
        }
    }

    @Test func interruptionsWithoutProgressRestartWhileNothingIsSentAndFailAfterwards() {
        var recovery = recovery()
        for _ in 0..<2 {
            #expect(recovery.decide(after: .interrupted(offset: 10), isHeadSent: false).action == .resume)
        }
        #expect(recovery.decide(after: .interrupted(offset: 10), isHeadSent: false).action == .restart)
        // The restart begins a new count, and is the last.
        for _ in 0..<2 {
            #expect(recovery.decide(after: .interrupted(offset: 10), isHeadSent: false).action == .resume)
        }
        #expect(
            recovery.decide(after: .interrupted(offset: 10), isHeadSent: false).action == .fail(.interrupted(count: 3)))
        var sent = self.recovery()
        for _ in 0..<2 { _ = sent.decide(after: .interrupted(offset: 10), isHeadSent: true) }
        #expect(sent.decide(after: .interrupted(offset: 10), isHeadSent: true).action == .fail(.interrupted(count: 3)))
    }

    @Test func candidatesOfACachedLookupAreLookedUpOnceMore() {
        var recovery = recovery()
        #expect(
            recovery.decide(after: raceFailed(hasBody: false, isCachedLookup: true), isHeadSent: false).action
                == .resume)
        #expect(
            recovery.decide(after: raceFailed(hasBody: false), isHeadSent: false).action == .fail(.allPeersFailed))
    }

    @Test func aBodyThatNoPeerContinuesIsRestartedUnlessItWasSent() {
        var recovery = recovery()
        #expect(recovery.decide(after: raceFailed(hasBody: true), isHeadSent: false).action == .restart)
        #expect(recovery.decide(after: raceFailed(hasBody: true), isHeadSent: false).action == .fail(.allPeersFailed))
        var sent = self.recovery()
        #expect(sent.decide(after: raceFailed(hasBody: true), isHeadSent: true).action == .fail(.allPeersFailed))
    }

    @Test func anotherLengthCastsSuspicionOnTheSources() {
        var recovery = recovery()
        recovery.lengthMismatchSeen()
        let decision = recovery.decide(after: raceFailed(hasBody: true), isHeadSent: false)
        #expect(decision == .init(action: .restart, recordedMismatch: .suspected))
        #expect(recovery.decide(after: raceFailed(hasBody: true), isHeadSent: false).recordedMismatch == nil)
    }

    @Test func wrongContentIsProvenOnlyOfASingleSource() {
        var recovery = recovery()
        #expect(
            recovery.decide(after: .digestMismatch(sources: 1), isHeadSent: false)
                == .init(action: .restart, recordedMismatch: .proven))
        #expect(
            recovery.decide(after: .digestMismatch(sources: 2), isHeadSent: false)
                == .init(action: .restart, recordedMismatch: .suspected))
        #expect(
            recovery.decide(after: .digestMismatch(sources: 1), isHeadSent: false)
                == .init(action: .fail(.digestMismatch), recordedMismatch: .proven))
        var sent = self.recovery()
        #expect(
            sent.decide(after: .digestMismatch(sources: 1), isHeadSent: true)
                == .init(action: .fail(.digestMismatch), recordedMismatch: .proven))
    }

    @Test func aDeadlineEndsIt() {
        var recovery = recovery()
        #expect(
            recovery.decide(
                after: .raceFailed(.deadline, isCachedLookup: true, hasBody: true), isHeadSent: false
            ).action == .fail(.timedOut))
        #expect(recovery.decide(after: .timedOut, isHeadSent: false).action == .fail(.timedOut))
    }
}
