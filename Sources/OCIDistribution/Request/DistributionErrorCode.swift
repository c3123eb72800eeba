/// The error codes of the OCI distribution specification ("Error codes"), and those of Docker's registry API that it
/// left out but clients know.
public enum DistributionErrorCode: String, Sendable, Hashable, CaseIterable {
    /// The blob is not here.
    case blobUnknown = "BLOB_UNKNOWN"
    /// An upload is invalid.
    case blobUploadInvalid = "BLOB_UPLOAD_INVALID"
    /// An upload is not known.
    case blobUploadUnknown = "BLOB_UPLOAD_UNKNOWN"
    /// The digest is malformed or does not match.
    case digestInvalid = "DIGEST_INVALID"
    /// A manifest refers to a manifest or blob that is not known.
    case manifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
    /// The manifest is invalid.
    case manifestInvalid = "MANIFEST_INVALID"
    /// The manifest is not here.
    case manifestUnknown = "MANIFEST_UNKNOWN"
    /// The name of the repository or of the registry is invalid.
    case nameInvalid = "NAME_INVALID"
    /// The repository is not known.
    case nameUnknown = "NAME_UNKNOWN"
    /// The size does not match.
    case sizeInvalid = "SIZE_INVALID"
    /// Credentials are required.
    case unauthorized = "UNAUTHORIZED"
    /// Access is denied.
    case denied = "DENIED"
    /// The operation is not supported.
    case unsupported = "UNSUPPORTED"
    /// Too many requests.
    case tooManyRequests = "TOOMANYREQUESTS"
    /// The tag is invalid (Docker).
    case tagInvalid = "TAG_INVALID"
    /// The range is invalid or cannot be satisfied (Docker).
    case rangeInvalid = "RANGE_INVALID"
    /// The service cannot answer now (Docker).
    case unavailable = "UNAVAILABLE"
    /// Anything else (Docker).
    case unknown = "UNKNOWN"

    /// The HTTP status that fits the code best.
    public var httpStatus: Int {
        switch self {
        case .blobUnknown, .blobUploadUnknown, .manifestBlobUnknown, .manifestUnknown, .nameUnknown: 404
        case .blobUploadInvalid, .digestInvalid, .manifestInvalid, .nameInvalid, .sizeInvalid, .tagInvalid,
            .rangeInvalid:
            400
        case .unauthorized: 401
        case .denied: 403
        case .unsupported: 405
        case .tooManyRequests: 429
        case .unavailable: 503
        case .unknown: 500
        }
    }

    /// A message for people that fits when there is nothing more to say.
    public var defaultMessage: String {
        switch self {
        case .blobUnknown: "blob unknown to registry"
        case .blobUploadInvalid: "blob upload invalid"
        case .blobUploadUnknown: "blob upload unknown to registry"
        case .digestInvalid: "provided digest is invalid or did not match the content"
        case .manifestBlobUnknown: "manifest references a manifest or blob unknown to registry"
        case .manifestInvalid: "manifest invalid"
        case .manifestUnknown: "manifest unknown to registry"
        case .nameInvalid: "invalid repository name"
        case .nameUnknown: "repository name not known to registry"
        case .sizeInvalid: "provided length did not match content length"
        case .unauthorized: "authentication required"
        case .denied: "requested access to the resource is denied"
        case .unsupported: "the operation is unsupported"
        case .tooManyRequests: "too many requests"
        case .tagInvalid: "tag invalid"
        case .rangeInvalid: "invalid range"
        case .unavailable: "service unavailable"
        case .unknown: "unknown error"
        }
    }
}
