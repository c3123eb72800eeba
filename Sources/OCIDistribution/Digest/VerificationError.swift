/// How content differs from what its descriptor promised.
public enum VerificationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// More bytes came than expected. `received` counts up to and including the chunk that went over the size.
    case tooLong(digest: Digest, expectedSize: Int64, received: Int64)
    /// The content ended early.
    case tooShort(digest: Digest, expectedSize: Int64, received: Int64)
    /// The bytes hash to something else.
    case digestMismatch(expected: Digest, actual: Digest, size: Int64)

    /// The digest that was expected.
    public var expected: Digest {
        switch self {
        case .tooLong(let digest, _, _), .tooShort(let digest, _, _), .digestMismatch(let digest, _, _): digest
        }
    }

    /// A sentence that says what was expected and what came.
    public var description: String {
        switch self {
        case .tooLong(let digest, let size, let received):
            "content of \(digest) is too long: expected \(size) bytes, got at least \(received)"
        case .tooShort(let digest, let size, let received):
            "content of \(digest) is too short: expected \(size) bytes, got \(received)"
        case .digestMismatch(let expected, let actual, let size):
            "content does not match its digest: expected \(expected), got \(actual) (\(size) bytes)"
        }
    }
}
