/// Why a string is not a reference to an image.
public enum ReferenceError: Error, Sendable, Hashable, CustomStringConvertible {
    /// Nothing, or longer than any reference can be.
    case invalidLength(input: String, count: Int)
    /// The first component is not a registry, and no default was allowed.
    case missingRegistry(input: String)
    /// The registry is not a host with an optional port.
    case invalidRegistry(input: String, reason: String)
    /// The repository breaks the grammar of names.
    case invalidRepository(input: String, reason: String)
    /// The tag breaks the grammar of tags.
    case invalidTag(input: String, reason: String)
    /// What follows the `@` is not a digest.
    case invalidDigest(input: String, reason: DigestError)

    /// A sentence naming the input and what is wrong with it.
    public var description: String {
        switch self {
        case .invalidLength(let input, let count):
            count == 0 ? "invalid reference: it is empty" : "invalid reference \(input): \(count) bytes are too long"
        case .missingRegistry(let input):
            "invalid reference \(input): it must begin with a registry, such as docker.io/library/nginx"
        case .invalidRegistry(let input, let reason), .invalidRepository(let input, let reason),
            .invalidTag(let input, let reason):
            "invalid reference \(input): \(reason)"
        case .invalidDigest(let input, let reason): "invalid reference \(input): \(reason)"
        }
    }
}
