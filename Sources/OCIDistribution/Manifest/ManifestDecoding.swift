#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The top-level fields that distinguish the kinds of manifest.
struct ManifestShape: Decodable {
    let mediaType: MediaType?
    let hasManifests: Bool
    let hasConfig: Bool
    let hasLayers: Bool
    let hasSchema1Layers: Bool
    let hasSignatures: Bool
    /// Whether there are fields of an image manifest, or of an index, whatever is in them.
    private let namesImage: Bool
    private let namesManifests: Bool

    private enum CodingKeys: String, CodingKey {
        case mediaType, manifests, config, layers, fsLayers, signatures
    }

    /// Any JSON array, whose elements are not decoded.
    private struct List: Decodable {
        init(from decoder: any Decoder) throws { _ = try decoder.unkeyedContainer() }
    }

    private struct Object: Decodable {
        private enum None: CodingKey {}
        init(from decoder: any Decoder) throws { _ = try decoder.container(keyedBy: None.self) }
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        mediaType = container.lenient(.mediaType, as: MediaType.self).flatMap { $0.rawValue.isEmpty ? nil : $0 }
        // Go writes a list that was never made as null.
        hasManifests = container.isNull(.manifests) || container.lenient(.manifests, as: List.self) != nil
        hasConfig = container.lenient(.config, as: Object.self) != nil
        hasLayers = container.isNull(.layers) || container.lenient(.layers, as: List.self) != nil
        hasSchema1Layers = container.lenient(.fsLayers, as: List.self) != nil
        hasSignatures = container.lenient(.signatures, as: List.self) != nil
        namesImage = container.contains(.config) || container.contains(.layers)
        namesManifests = container.contains(.manifests)
    }

    /// The type of the document: the `mediaType` field, else by shape (`manifests` is an index, `config` and `layers` a
    /// manifest).
    func classify() throws(ManifestError) -> MediaType {
        // Readers that disagree about such a document could be made to run different images (CVE-2021-41190).
        if namesManifests, namesImage { throw .ambiguous }
        if let mediaType {
            guard mediaType.isManifest || mediaType.isDockerSchema1 else {
                throw .notAManifest(reason: "mediaType is \(sanitizedExcerpt(mediaType.rawValue))")
            }
            if mediaType.isIndex, namesImage { throw .ambiguous }
            if mediaType.isImageManifest, namesManifests { throw .ambiguous }
            return mediaType
        }
        if hasManifests { return .imageIndex }
        if hasConfig, hasLayers { return .imageManifest }
        if hasSchema1Layers { return hasSignatures ? .dockerSchema1Signed : .dockerSchema1 }
        throw .notAManifest(reason: "no mediaType, and neither manifests nor config and layers")
    }
}

extension MediaType {
    /// Finds the type of a manifest from its content: the `mediaType` field, else by shape.
    ///
    /// - Returns: nil when the content is over ``Manifest/maximumSize``, is not a JSON object, or is not a manifest,
    ///   as are configs, layers and any other blob. Docker schema 1 is recognised.
    public static func detect(manifestJSON bytes: some Collection<UInt8>) -> MediaType? {
        // Most blobs are not JSON, which the first byte shows.
        let start = bytes.first { $0 != 0x20 && $0 != 0x09 && $0 != 0x0A && $0 != 0x0D }
        guard start == 0x7B else { return nil }
        do throws(ManifestError) {
            return try decodeJSON(ManifestShape.self, from: bytes).classify()
        } catch {
            return nil
        }
    }
}

/// Decodes JSON of at most ``Manifest/maximumSize`` bytes; errors name the place.
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
        throw .malformed(path: "", reason: sanitizedExcerpt("\(error)"))
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

/// Lenient decoding of optional fields: null or another type counts as absent.
extension KeyedDecodingContainer {
    func lenient<Value: Decodable>(_ key: Key, as type: Value.Type = Value.self) -> Value? {
        (try? decodeIfPresent(Value.self, forKey: key)) ?? nil
    }

    /// A map of strings; entries with other values are left out.
    func lenientStrings(_ key: Key) -> [String: String]? {
        lenient(key, as: [String: Lenient<String>].self)?.compactMapValues(\.value)
    }

    /// Whether a key is there and its value is null.
    func isNull(_ key: Key) -> Bool {
        contains(key) && (try? decodeNil(forKey: key)) == true
    }

    /// A list that must be there, of at most `limit` elements; null is an empty one, as Go writes it.
    func bounded<Element: Decodable>(_ key: Key, limit: Int) throws -> [Element] {
        if isNull(key) { return [] }
        var list = try nestedUnkeyedContainer(forKey: key)
        var elements: [Element] = []
        while !list.isAtEnd {
            guard elements.count < limit else {
                throw DecodingError.dataCorruptedError(
                    forKey: key, in: self, debugDescription: "more than \(limit) elements")
            }
            elements.append(try list.decode(Element.self))
        }
        return elements
    }
}

/// A value, or nil when it is of another type.
private struct Lenient<Value: Decodable>: Decodable {
    let value: Value?

    init(from decoder: any Decoder) throws {
        value = try? decoder.singleValueContainer().decode(Value.self)
    }
}
