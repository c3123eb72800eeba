/// Why a string is not a digest that can be used.
public enum DigestError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The input does not follow the grammar `algorithm ":" encoded` of the OCI image specification.
    /// The input is an excerpt that is safe to log.
    case malformed(input: String, reason: String)
    /// The input is well formed, but its algorithm is neither `sha256` nor `sha512`.
    case unsupportedAlgorithm(algorithm: String, input: String)

    /// A sentence naming the input and what is wrong with it.
    public var description: String {
        switch self {
        case .malformed(let input, let reason): "invalid digest \(input): \(reason)"
        case .unsupportedAlgorithm(let algorithm, let input):
            "unsupported digest algorithm \(algorithm) in \(input): sha256 and sha512 are supported"
        }
    }
}
