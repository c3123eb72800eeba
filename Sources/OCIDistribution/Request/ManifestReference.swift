/// What a manifest is asked for by: its tag or its digest.
public enum ManifestReference: Sendable, Hashable, CustomStringConvertible {
    /// A name that may move.
    case tag(String)
    /// The content itself.
    case digest(Digest)

    /// Tag or digest as it stands in a path.
    public var description: String {
        switch self {
        case .tag(let tag): tag
        case .digest(let digest): digest.description
        }
    }
}
