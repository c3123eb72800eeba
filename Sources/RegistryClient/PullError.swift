import OCIDistribution

/// Why something could not be pulled.
package enum PullError: Error, Sendable, CustomStringConvertible {
    /// The server does not have it.
    case notFound(url: String)
    /// The server answered with another status; with its words, shortened.
    case status(url: String, Int, String)
    /// No answer, or it broke off; with what the last try said.
    case unreachable(url: String, reason: String)
    /// A manifest that cannot be used.
    case badManifest(Digest?, reason: String)
    /// The content is not what its digest says, each time it was fetched.
    case corrupt(Digest, reason: String)
    /// The content has another size than the descriptor that names it.
    case wrongSize(Digest, described: Int64, actual: Int64)
    /// Nothing of the selected platforms can be pulled.
    case noPlatform(String)
    /// The server wants credentials that were not given, or refuses those that were.
    case unauthorized(url: String, givenCredentials: Bool)
    /// The image holds more than a pull takes on.
    case tooLarge(String)
    /// The store refused.
    case store(String)

    package var description: String {
        switch self {
        case .notFound(let url): "\(url): not found"
        case .status(let url, let status, let text): "\(url): status \(status)\(text.isEmpty ? "" : ": \(text)")"
        case .unreachable(let url, let reason): "\(url): \(reason)"
        case .badManifest(let digest, let reason): "manifest \(digest.map(\.description) ?? ""): \(reason)"
        case .corrupt(let digest, let reason): "\(digest): \(reason)"
        case .wrongSize(let digest, let described, let actual):
            "\(digest) has \(actual) bytes, but its descriptor says \(described): the manifest that names it is wrong"
        case .noPlatform(let what): what
        case .unauthorized(let url, let given):
            "\(url): status 401, the server \(given ? "refuses these credentials" : "wants credentials")"
        case .tooLarge(let what): what
        case .store(let reason): reason
        }
    }

    /// Whether asking again may help.
    var isTransient: Bool {
        switch self {
        case .unreachable: true
        case .status(_, let status, _): status == 429 || status >= 500
        case .notFound, .badManifest, .corrupt, .wrongSize, .noPlatform, .unauthorized, .tooLarge, .store: false
        }
    }
}
