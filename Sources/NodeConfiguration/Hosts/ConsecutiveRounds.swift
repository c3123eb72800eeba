/// Counts rounds that succeeded one after the other.
package struct ConsecutiveRounds: Sendable {
    /// How many are wanted.
    package let threshold: Int
    /// How many there were since the last failure.
    package private(set) var count = 0

    package init(threshold: Int) {
        self.threshold = threshold
    }

    /// Records a round.
    ///
    /// - Returns: Whether as many as wanted have succeeded in a row.
    package mutating func record(isSuccess: Bool) -> Bool {
        count = isSuccess ? count + 1 : 0
        return count >= threshold
    }
}
