#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Decodes JSON of at most ``Manifest/maximumSize`` bytes, with errors that say where.
func decodeJSON<Value: Decodable>(
    _ type: Value.Type, from bytes: some Collection<UInt8>
) throws(ManifestError) -> Value {
    let size = bytes.count
    guard size <= Manifest.maximumSize else { throw .tooLarge(size: size, limit: Manifest.maximumSize) }
    do {
        return try JSONDecoder().decode(type, from: (bytes as? Data) ?? Data(bytes))
    } catch let error as DecodingError {
        throw ManifestError(error)
    } catch {
        throw .malformed(path: "", reason: excerpt("\(error)"))
    }
}

extension ManifestError {
    init(_ error: DecodingError) {
        let context: DecodingError.Context
        var missing: String?
        switch error {
        case .typeMismatch(_, let found), .valueNotFound(_, let found), .dataCorrupted(let found): context = found
        case .keyNotFound(let key, let found):
            context = found
            missing = key.stringValue
        @unknown default:
            self = .malformed(path: "", reason: "cannot be decoded")
            return
        }
        let path = context.codingPath.map { $0.intValue.map(String.init) ?? $0.stringValue }.joined(separator: ".")
        if let missing {
            self = .malformed(path: path, reason: "\(missing) is missing")
        } else if let cause = context.underlyingError as? DigestError {
            self = .malformed(path: path, reason: "\(cause)")
        } else {
            self = .malformed(path: path, reason: context.debugDescription)
        }
    }
}
