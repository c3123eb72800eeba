import NIOConcurrencyHelpers
import OCIDistribution

/// Adds up what several threads have verified and tells it.
final class VerificationMeter: Sendable {
    private struct State {
        var progress: VerificationProgress
        var isCancelled = false
    }

    private let state: NIOLockedValueBox<State>
    private let report: @Sendable (VerificationProgress) -> Void

    init(plan: VerificationPlan, report: @escaping @Sendable (VerificationProgress) -> Void) {
        self.report = report
        let total = plan.blobs.reduce(Int64(0)) { sum, blob in
            let (total, overflow) = sum.addingReportingOverflow(blob.size)
            return overflow ? .max : total
        }
        state = NIOLockedValueBox(
            State(
                progress: VerificationProgress(
                    current: nil, checkedBlobs: 0, totalBlobs: plan.blobs.count, checkedBytes: 0, totalBytes: total)))
    }

    func cancel() { state.withLockedValue { $0.isCancelled = true } }

    /// Counts bytes; `false` when it is time to stop.
    func add(_ count: Int, of digest: Digest) -> Bool {
        let state = state.withLockedValue { state in
            state.progress.current = digest
            state.progress.checkedBytes += Int64(count)
            return state
        }
        report(state.progress)
        return !state.isCancelled
    }

    /// Counts a blob.
    func finish(_ blob: VerificationPlan.Blob) {
        let progress = state.withLockedValue { state in
            state.progress.checkedBlobs += 1
            if state.progress.current == blob.digest { state.progress.current = nil }
            return state.progress
        }
        report(progress)
    }
}
