import OCIDistribution

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Why a store could not do what it was asked. Absence of content is not an error.
public enum ContentStoreError: Error, Sendable, Hashable {
    /// The bytes do not have the expected digest.
    case digestMismatch(expected: Digest, actual: Digest)
    /// There are more or fewer bytes than expected. `actual` is where counting stopped.
    case sizeMismatch(Digest, expected: Int64, actual: Int64)
    /// The content to be tagged is not in the store.
    case absent(Digest)
    /// A reference has neither a tag nor a digest, so nothing can be stored under it.
    case untaggable(Reference)
    /// The writer was committed or aborted before.
    case writerClosed
    /// The limit of concurrent writers is reached.
    case tooManyWriters(limit: Int)
    /// The file system is full, or the store's own limit is reached. The value names the place.
    case noSpace(String)
    /// The file system is mounted read-only. The value names the place.
    case readOnly(String)
    /// The operating system denies access. The value names the place.
    case permissionDenied(String)
    /// The directory is not an OCI image layout; `reason` names what is missing.
    case notALayout(path: String, reason: String)
    /// The directory is an OCI image layout of a version that is not supported.
    case unsupportedLayoutVersion(path: String, version: String)
    /// A layout's `index.json` cannot be parsed.
    case malformedIndex(path: String, reason: String)
    /// The bytes of content in the store do not have its digest.
    case corrupt(Digest, reason: String)
    /// The backend cannot be reached now. The value is the reason.
    case unavailable(String)
    /// The store was shut down.
    case closed
    /// The operating system reports another error for an operation.
    case io(String, errno: Int32)
}

extension ContentStoreError: CustomStringConvertible {
    /// The error in words, with what it is about.
    public var description: String {
        switch self {
        case .digestMismatch(let expected, let actual): "expected content with digest \(expected), got \(actual)"
        case .sizeMismatch(let digest, let expected, let actual):
            "expected \(expected) bytes for \(digest), got \(actual)"
        case .absent(let digest): "\(digest) is not in the store"
        case .untaggable(let reference): "\(reference) has neither a tag nor a digest"
        case .writerClosed: "the writer was committed or aborted before"
        case .tooManyWriters(let limit): "the limit of \(limit) concurrent writers is reached"
        case .noSpace(let place): "no space left: \(place)"
        case .readOnly(let place): "read-only file system: \(place)"
        case .permissionDenied(let place): "permission denied: \(place)"
        case .notALayout(let path, let reason): "\(path) is not an OCI image layout: \(reason)"
        case .unsupportedLayoutVersion(let path, let version):
            "\(path) is an OCI image layout of version \(version); only 1.0.x is supported"
        case .malformedIndex(let path, let reason): "\(path) cannot be parsed: \(reason)"
        case .corrupt(let digest, let reason): "\(digest) is damaged in the store: \(reason)"
        case .unavailable(let reason): "the store's backend is not available: \(reason)"
        case .closed: "the store is shut down"
        case .io(let operation, let number): "\(operation): \(String(cString: strerror(number)))"
        }
    }
}

extension ContentStoreError {
    /// The error for an `errno` of an operation on files. Errors that an operator can act on have cases of their own.
    package init(errno number: Int32, _ operation: String) {
        switch number {
        case ENOSPC, EDQUOT, EFBIG: self = .noSpace(operation)
        case EROFS: self = .readOnly(operation)
        case EACCES, EPERM: self = .permissionDenied(operation)
        default: self = .io(operation, errno: number)
        }
    }
}
