/// A regular expression as a tree.
indirect enum PatternNode: Sendable, Hashable {
    case empty
    case bytes(ByteSet)
    case assertion(PatternAssertion)
    case sequence([PatternNode])
    case choice([PatternNode])
    /// At least `minimum` times, at most `maximum` times, without end when that is nil.
    case repetition(PatternNode, minimum: Int, maximum: Int?)
}

/// A condition on a place between two bytes.
enum PatternAssertion: Sendable, Hashable {
    case start
    case end
    case wordBoundary
    case notWordBoundary
}

/// What is wrong with a regular expression.
struct PatternError: Error, CustomStringConvertible {
    let description: String
}
