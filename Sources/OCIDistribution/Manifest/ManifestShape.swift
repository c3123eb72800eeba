#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The top-level fields that tell the kinds of manifest apart.
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

    /// Stands for any JSON value of a container type, without looking inside.
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
                throw .notAManifest(reason: "mediaType is \(excerpt(mediaType.rawValue))")
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
    ///   which is so for configs, layers and any other blob. Docker schema 1 is recognised.
    public static func detect(manifestJSON bytes: some Collection<UInt8>) -> MediaType? {
        // Most blobs this is asked of are no JSON: a look at the first byte tells.
        let start = bytes.first { $0 != 0x20 && $0 != 0x09 && $0 != 0x0A && $0 != 0x0D }
        guard start == 0x7B else { return nil }
        do throws(ManifestError) {
            return try decodeJSON(ManifestShape.self, from: bytes).classify()
        } catch {
            return nil
        }
    }
}
