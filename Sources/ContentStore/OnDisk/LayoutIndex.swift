import OCIDistribution

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The `index.json` of an image layout (OCI image specification, image-layout.md): which manifests it holds and under
/// which names. Unknown fields are preserved when it is written again.
struct LayoutIndex: Sendable {
    static let fileName = "index.json"
    /// A larger file is refused, in bytes.
    static let sizeLimit = 4 << 20
    /// The annotation with the full name, as containerd writes it.
    static let fullNameAnnotation = "io.containerd.image.name"
    /// The annotation of the OCI specification; a full name, or only a tag.
    static let nameAnnotation = "org.opencontainers.image.ref.name"

    /// One element of `manifests`.
    struct Entry: Sendable {
        var reference: Reference?
        var descriptor: Descriptor
    }

    private var root: [String: PreservedJSON]
    private var elements: [PreservedJSON]
    private let bareTags: ContentSource?

    /// An empty index.
    init(bareTags: ContentSource?) {
        root = ["schemaVersion": .integer(2), "mediaType": .string(MediaType.imageIndex.rawValue)]
        elements = []
        self.bareTags = bareTags
    }

    /// Parses an `index.json`.
    ///
    /// - Parameters:
    ///   - path: for messages.
    ///   - bareTags: the repository that names with nothing but a tag belong to; `nil` to skip them.
    /// - Throws: ``ContentStoreError/malformedIndex(path:reason:)`` when it is not an index. Single elements that cannot
    ///   be parsed are skipped.
    init(parsing bytes: [UInt8], path: String, bareTags: ContentSource?) throws(ContentStoreError) {
        let json: PreservedJSON
        do {
            json = try PreservedJSON.parse(bytes)
        } catch {
            throw .malformedIndex(path: path, reason: bytes.isEmpty ? "it is empty" : "it is not valid JSON")
        }
        guard let root = json.object else { throw .malformedIndex(path: path, reason: "it is not a JSON object") }
        let manifests = root["manifests"] ?? .array([])
        guard let elements = manifests == .null ? [] : manifests.array else {
            throw .malformedIndex(path: path, reason: "manifests is not a list")
        }
        self.root = root
        self.elements = elements
        self.bareTags = bareTags
    }

    /// The elements that can be parsed, in order, and the problems of the others.
    func entries() -> (entries: [Entry], problems: [String]) {
        var entries: [Entry] = []
        var problems: [String] = []
        for (position, element) in elements.enumerated() {
            guard let text = element["digest"]?.string else {
                problems.append("manifest \(position) has no digest")
                continue
            }
            let digest: Digest
            do throws(DigestError) {
                digest = try Digest(parsing: text)
            } catch {
                problems.append("manifest \(position): \(error)")
                continue
            }
            let (reference, problem) = name(of: element)
            if let problem { problems.append("manifest \(position) (\(digest)): \(problem)") }
            entries.append(
                Entry(
                    reference: reference,
                    // Size and type are hints, which those of the content replace.
                    descriptor: Descriptor(
                        mediaType: element["mediaType"]?.string.map { MediaType(rawValue: $0) } ?? .octetStream,
                        digest: digest, size: max(0, element["size"]?.integer ?? 0))))
        }
        return (entries, problems)
    }

    /// Makes a name lead to one manifest.
    mutating func set(_ reference: Reference, to target: Descriptor) {
        remove(reference)
        var fields: [String: PreservedJSON] = [
            "mediaType": .string(target.mediaType.rawValue),
            "digest": .string(target.digest.description),
            "size": .integer(target.size),
        ]
        var annotations = (target.annotations ?? [:]).mapValues { PreservedJSON.string($0) }
        // Both, so that containerd finds it by the one and skopeo by the other.
        annotations[Self.fullNameAnnotation] = .string(reference.description)
        annotations[Self.nameAnnotation] = .string(reference.description)
        fields["annotations"] = .object(annotations)
        elements.append(.object(fields))
    }

    /// Removes a name with its elements.
    ///
    /// - Returns: whether there was one.
    @discardableResult
    mutating func remove(_ reference: Reference) -> Bool {
        let kept = elements.filter { name(of: $0).reference != reference }
        defer { elements = kept }
        return kept.count < elements.count
    }

    /// The bytes to write.
    func encoded() throws -> [UInt8] {
        var root = root
        root["manifests"] = .array(elements)
        return try PreservedJSON.object(root).encoded()
    }

    private func name(of element: PreservedJSON) -> (reference: Reference?, problem: String?) {
        let annotations = element["annotations"]
        guard
            let text = annotations?[Self.fullNameAnnotation]?.string ?? annotations?[Self.nameAnnotation]?.string
        else { return (nil, nil) }
        do throws(ReferenceError) {
            let reference = try Reference(parsing: text)
            guard reference.tag != nil || reference.digest != nil else {
                return (nil, "the name \(text) has neither a tag nor a digest")
            }
            return (reference, nil)
        } catch {
            if let bareTags,
                let reference = try? Reference(
                    registry: bareTags.registry, repository: bareTags.repository, tag: text)
            {
                return (reference, nil)
            }
            return (nil, "its name is skipped, as it names no registry: \(error)")
        }
    }
}

/// A JSON value that is written as it was read, so that fields of other programs in an `index.json` are preserved.
enum PreservedJSON: Sendable, Hashable, Codable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([PreservedJSON])
    case object([String: PreservedJSON])

    init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        if value.decodeNil() {
            self = .null
        } else if let bool = try? value.decode(Bool.self) {
            self = .bool(bool)
        } else if let integer = try? value.decode(Int64.self) {
            self = .integer(integer)
        } else if let number = try? value.decode(Double.self) {
            self = .number(number)
        } else if let string = try? value.decode(String.self) {
            self = .string(string)
        } else if let array = try? value.decode([PreservedJSON].self) {
            self = .array(array)
        } else {
            self = .object(try value.decode([String: PreservedJSON].self))
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }

    subscript(key: String) -> PreservedJSON? {
        if case .object(let fields) = self { fields[key] } else { nil }
    }

    var string: String? {
        if case .string(let value) = self { value } else { nil }
    }

    var integer: Int64? {
        if case .integer(let value) = self { value } else { nil }
    }

    var array: [PreservedJSON]? {
        if case .array(let value) = self { value } else { nil }
    }

    var object: [String: PreservedJSON]? {
        if case .object(let value) = self { value } else { nil }
    }

    /// Parses JSON; nesting is limited by the decoder.
    static func parse(_ bytes: [UInt8]) throws -> PreservedJSON {
        try JSONDecoder().decode(PreservedJSON.self, from: Data(bytes))
    }

    /// Writes JSON with its keys in order.
    func encoded() throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return [UInt8](try encoder.encode(self))
    }
}
