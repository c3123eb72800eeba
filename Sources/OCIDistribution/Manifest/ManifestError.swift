/// Why a document is not a manifest, index or config that can be used.
public enum ManifestError: Error, Sendable, Hashable, CustomStringConvertible {
    /// Larger than ``Manifest/maximumSize``; sizes in bytes.
    case tooLarge(size: Int, limit: Int)
    /// Not JSON, or a required field is missing or invalid; `path` leads to the place, for example `layers.2.digest`.
    case malformed(path: String, reason: String)
    /// Neither an index nor an image manifest, by media type or shape.
    case notAManifest(reason: String)
    /// Has the fields of both an index and an image manifest, so that readers could take it for either.
    case ambiguous
    /// A Docker schema 1 manifest.
    case unsupported(MediaType)
    /// The document says it has, or by its shape has, another type than was expected.
    case mediaTypeMismatch(expected: MediaType, actual: MediaType)

    /// A sentence that says what is wrong.
    public var description: String {
        switch self {
        case .tooLarge(let size, let limit): "the document has \(size) bytes, more than the limit of \(limit)"
        case .malformed(let path, let reason):
            path.isEmpty ? "malformed document: \(reason)" : "malformed document at \(path): \(reason)"
        case .notAManifest(let reason): "not a manifest: \(reason)"
        case .ambiguous: "ambiguous manifest: it has the fields of an index and those of an image manifest"
        case .unsupported(let type): "manifests of type \(type) (Docker schema 1) are not supported"
        case .mediaTypeMismatch(let expected, let actual): "expected a manifest of type \(expected), got \(actual)"
        }
    }
}
