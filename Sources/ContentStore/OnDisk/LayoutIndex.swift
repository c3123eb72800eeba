import OCIDistribution

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The format of the `index.json` of an image layout (OCI image specification, image-layout.md): the manifests of the layout
/// and their names.
///
/// The file is read and written in pieces, so that memory does not grow with its size. Fields of other programs are copied
/// as they are when a name is changed.
struct LayoutIndex: Sendable {
    static let fileName = "index.json"
    /// A larger file is refused, in bytes. 100,000 names are about 40 MB.
    static let sizeLimit = 512 << 20
    /// An element of `manifests`, or another member, with more bytes is refused.
    static let elementLimit = 4 << 20
    /// Further names are skipped.
    static let nameLimit = 500_000
    /// The annotation with the full name, as containerd writes it.
    static let fullNameAnnotation = "io.containerd.image.name"
    /// The annotation of the OCI specification; a full name, or only a tag.
    static let nameAnnotation = "org.opencontainers.image.ref.name"

    /// The file's path, for messages.
    let path: String
    /// The repository of names that are only a tag; `nil` to skip them.
    let bareTags: ContentSource?

    /// An index without manifests.
    static let empty = #"{"schemaVersion":2,"mediaType":"\#(MediaType.imageIndex.rawValue)","manifests":[]}"#

    // MARK: Reading

    /// One element of `manifests`.
    struct Entry: Sendable {
        var reference: Reference?
        var descriptor: Descriptor
    }

    /// The names of an index, and the problems of elements that have none.
    struct Names: Sendable {
        fileprivate(set) var targets: [Reference: Descriptor] = [:]
        /// The first 20 problems.
        fileprivate(set) var problems: [String] = []

        fileprivate mutating func add(_ problem: String) {
            if problems.count < 20 { problems.append(problem) }
        }
    }

    /// Reads all names.
    ///
    /// - Throws: ``ContentStoreError/malformedIndex(path:reason:)`` when it is not an index, or why it cannot be read. Elements
    ///   that cannot be parsed are skipped.
    func readNames(_ source: @escaping JSONReader.Source) throws(ContentStoreError) -> Names {
        var names = Names()
        try forEachEntry(JSONReader(source: source)) { position, result in
            switch result {
            case .failure(let problem): names.add("manifest \(position)\(problem.description)")
            case .success(let entry):
                guard let reference = entry.reference else { return }
                guard names.targets.count < Self.nameLimit || names.targets[reference] != nil else {
                    return names.add("more than \(Self.nameLimit) names; the others are skipped")
                }
                if let old = names.targets.updateValue(entry.descriptor, forKey: reference),
                    old.digest != entry.descriptor.digest
                {
                    names.add(
                        "\(reference) occurs more than once; its last element, \(entry.descriptor.digest), counts")
                }
            }
        }
        return names
    }

    /// Why an element has no name, as the end of a sentence.
    struct Problem: Error, CustomStringConvertible {
        var description: String
    }

    /// Calls `body` with each element of `manifests` and its position. An element with a valid digest and an invalid name is
    /// a failure.
    func forEachEntry(
        _ reader: JSONReader, _ body: (Int, Result<Entry, Problem>) -> Void
    ) throws(ContentStoreError) {
        var position = 0
        try forEachPart(reader) { (part) throws(ContentStoreError) in
            guard case .element(let bytes) = part else { return }
            body(position, parse(bytes))
            position += 1
        }
    }

    private func parse(_ element: [UInt8]) -> Result<Entry, Problem> {
        guard let fields = Fields.parse(element) else { return .failure(Problem(description: " cannot be parsed")) }
        guard let text = fields.digest else { return .failure(Problem(description: " has no digest")) }
        let digest: Digest
        do throws(DigestError) {
            digest = try Digest(parsing: text)
        } catch {
            return .failure(Problem(description: ": \(error)"))
        }
        switch name(fields) {
        case .failure(let problem): return .failure(Problem(description: " (\(digest)): \(problem)"))
        case .success(let reference):
            // Size and type are hints, which those of the content replace.
            let descriptor = Descriptor(
                mediaType: fields.mediaType.map { MediaType(rawValue: $0) } ?? .octetStream, digest: digest,
                size: max(0, fields.size ?? 0))
            return .success(Entry(reference: reference, descriptor: descriptor))
        }
    }

    private func name(_ fields: Fields) -> Result<Reference?, Problem> {
        guard let text = fields.fullName ?? fields.name else { return .success(nil) }
        do throws(ReferenceError) {
            let reference = try Reference(parsing: text)
            guard reference.tag != nil || reference.digest != nil else {
                return .failure(Problem(description: "the name \(text) has neither a tag nor a digest"))
            }
            return .success(reference)
        } catch {
            if let bareTags,
                let reference = try? Reference(
                    registry: bareTags.registry, repository: bareTags.repository, tag: text)
            {
                return .success(reference)
            }
            return .failure(Problem(description: "its name is skipped, as it names no registry: \(error)"))
        }
    }

    // MARK: Writing

    /// A change of one name.
    enum Edit: Sendable {
        /// Makes a name lead to one manifest.
        case set(Reference, Descriptor)
        /// Removes a name with its elements.
        case remove(Reference)
    }

    /// Copies an index with a change.
    ///
    /// - Parameter write: receives the bytes of the new index, in pieces.
    /// - Returns: whether the new index differs.
    /// - Throws: as ``readNames(_:)``, and what `write` throws.
    func apply(
        _ edit: Edit, to reader: JSONReader, write: ([UInt8]) throws(ContentStoreError) -> Void
    ) throws(ContentStoreError) -> Bool {
        let reference: Reference
        var added: [UInt8]?
        switch edit {
        case .remove(let name): reference = name
        case .set(let name, let target):
            reference = name
            added = try encode(target, as: name)
        }
        var isChanged = added != nil
        var separator: [UInt8] = []
        var hasManifests = false
        func finishManifests() throws(ContentStoreError) {
            if let added { try write(separator + added) }
            try write([UInt8(ascii: "]")])
        }
        try write([UInt8(ascii: "{")])
        var memberSeparator: [UInt8] = []
        try forEachPart(reader) { (part) throws(ContentStoreError) in
            switch part {
            case .member(let bytes):
                try write(memberSeparator + bytes)
                memberSeparator = [UInt8(ascii: ",")]
            case .manifestsBegin:
                try write(memberSeparator + Array(#""manifests":["#.utf8))
                memberSeparator = [UInt8(ascii: ",")]
                hasManifests = true
            case .element(let bytes):
                if case .success(let entry) = parse(bytes), entry.reference == reference {
                    isChanged = true
                    return
                }
                try write(separator + bytes)
                separator = [UInt8(ascii: ",")]
            case .manifestsEnd: try finishManifests()
            }
        }
        if !hasManifests {
            try write(memberSeparator + Array(#""manifests":["#.utf8))
            try finishManifests()
        }
        try write([UInt8(ascii: "}")])
        return isChanged
    }

    private func encode(_ target: Descriptor, as reference: Reference) throws(ContentStoreError) -> [UInt8] {
        var element = Descriptor(mediaType: target.mediaType, digest: target.digest, size: target.size)
        // Both, so that containerd finds it by the one and skopeo by the other.
        element.annotations = (target.annotations ?? [:]).merging([
            Self.fullNameAnnotation: reference.description, Self.nameAnnotation: reference.description,
        ]) { _, new in new }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let bytes = try? encoder.encode(element) else {
            throw .malformedIndex(path: path, reason: "\(reference) cannot be written")
        }
        return [UInt8](bytes)
    }

    // MARK: The structure

    /// A part of an index, in the order of the file.
    private enum Part {
        /// A member other than `manifests`: key, colon and value.
        case member([UInt8])
        case manifestsBegin
        /// An element of `manifests`.
        case element([UInt8])
        case manifestsEnd
    }

    private func forEachPart(
        _ reader: JSONReader, _ body: (Part) throws(ContentStoreError) -> Void
    ) throws(ContentStoreError) {
        var reader = reader
        var problem: ContentStoreError?
        /// Errors of `body` pass through the reader as errors of its source.
        func pass(_ part: Part) throws(JSONReader.Failure) {
            do throws(ContentStoreError) { try body(part) } catch { throw .source(error) }
        }
        func malformed(_ reason: String) -> ContentStoreError { .malformedIndex(path: path, reason: reason) }
        do throws(JSONReader.Failure) {
            guard let first = try reader.peekToken() else { throw .source(malformed("it is empty")) }
            guard first == UInt8(ascii: "{") else { throw .source(malformed("it is not a JSON object")) }
            var hasManifests = false
            try reader.readObject { (reader, key) throws(JSONReader.Failure) in
                guard key == "manifests" else {
                    let value = try reader.captureValue(limit: Self.elementLimit)
                    return try pass(.member(JSONReader.quoted(key) + [UInt8(ascii: ":")] + value))
                }
                guard !hasManifests else { throw .source(malformed("manifests occurs more than once")) }
                hasManifests = true
                let next = try reader.peekToken()
                guard next == UInt8(ascii: "[") || next == UInt8(ascii: "n") else {
                    throw .source(malformed("manifests is not a list"))
                }
                try pass(.manifestsBegin)
                if next == UInt8(ascii: "n") {
                    // Go writes an empty list as null.
                    try reader.skipValue()
                } else {
                    try reader.readArray { (reader) throws(JSONReader.Failure) in
                        try pass(.element(try reader.captureValue(limit: Self.elementLimit)))
                    }
                }
                try pass(.manifestsEnd)
            }
            try reader.finish()
        } catch {
            switch error {
            case .malformed: problem = malformed("it is not valid JSON")
            case .tooLarge(let limit): problem = malformed("a value has more than \(limit) bytes")
            case .source(let reason): problem = reason
            }
        }
        if let problem { throw problem }
    }
}

/// The fields of an element that name it and describe its target. Fields of another type count as absent.
private struct Fields {
    var digest: String?
    var mediaType: String?
    var size: Int64?
    var fullName: String?
    var name: String?

    /// Reads the fields of an element; nil when it is not an object.
    static func parse(_ element: [UInt8]) -> Fields? {
        var reader = JSONReader(element)
        var fields = Fields()
        do throws(JSONReader.Failure) {
            try reader.readObject { (reader, key) throws(JSONReader.Failure) in
                switch key {
                case "digest": fields.digest = try reader.readStringIfAny()
                case "mediaType": fields.mediaType = try reader.readStringIfAny()
                case "size": fields.size = try reader.readIntegerIfAny()
                case "annotations":
                    guard try reader.peekToken() == UInt8(ascii: "{") else { return try reader.skipValue() }
                    try reader.readObject { (reader, key) throws(JSONReader.Failure) in
                        switch key {
                        case LayoutIndex.fullNameAnnotation: fields.fullName = try reader.readStringIfAny()
                        case LayoutIndex.nameAnnotation: fields.name = try reader.readStringIfAny()
                        default: try reader.skipValue()
                        }
                    }
                default: try reader.skipValue()
                }
            }
        } catch {
            return nil
        }
        return fields
    }
}
