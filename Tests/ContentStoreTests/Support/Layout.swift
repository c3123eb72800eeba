import ContentStore
import ContentStoreConformance
import Foundation
import Logging
import NIOConcurrencyHelpers
import OCIDistribution
import TestSupport

/// An image layout as another program would make and change it: with files, without the library.
final class Layout: Sendable {
    let path: String
    private let directory: TemporaryDirectory
    private let lock = NIOLock()

    /// Makes a layout without content.
    init() throws {
        directory = try TemporaryDirectory()
        path = "\(directory.path)/layout"
        try FileManager.default.createDirectory(atPath: "\(path)/blobs/sha256", withIntermediateDirectories: true)
        try write(#"{"imageLayoutVersion":"1.0.0"}"#, to: "oci-layout")
        try write(#"{"schemaVersion":2,"manifests":[]}"#, to: "index.json")
    }

    /// Opens it as a store.
    func open(
        watch: Bool = true, logger: Logger? = nil, _ change: (inout OnDiskContentStore.Options) -> Void = { _ in }
    ) async throws -> OnDiskContentStore {
        var options = OnDiskContentStore.Options()
        options.watchesChanges = watch
        // Each change of names waits for the disk, which other tests keep busy.
        options.lockTimeout = .seconds(300)
        options.logger = logger ?? Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        change(&options)
        return try await OnDiskContentStore.open(path: path, options: options)
    }

    func file(_ digest: Digest) -> String { "\(path)/blobs/\(digest.algorithm.rawValue)/\(digest.hex)" }

    /// Writes a file in place.
    func write(_ text: String, to name: String) throws {
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(path)/\(name)"))
    }

    /// Adds a blob as layout tools do: written beside and renamed.
    func put(_ bytes: [UInt8], as digest: Digest) throws {
        let temporary = "\(path)/put-blob-\(UInt64.random(in: 0 ... .max))"
        try Data(bytes).write(to: URL(fileURLWithPath: temporary))
        try? FileManager.default.createDirectory(
            atPath: "\(path)/blobs/\(digest.algorithm.rawValue)", withIntermediateDirectories: true)
        guard rename(temporary, file(digest)) == 0 else { throw CocoaError(.fileWriteUnknown) }
    }

    func put(_ blob: SampleContent.Blob) throws { try put(blob.bytes, as: blob.digest) }

    func put(_ image: SampleContent.Image) throws {
        for blob in image.blobs.reversed() { try put(blob) }
    }

    func remove(_ digest: Digest) throws { try FileManager.default.removeItem(atPath: file(digest)) }

    /// Changes `index.json` as layout tools do: written beside and renamed.
    func editIndex(_ change: (inout [[String: Any]]) -> Void) throws {
        try lock.withLock {
            let url = URL(fileURLWithPath: "\(path)/index.json")
            var root = try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any] ?? [:]
            var manifests = root["manifests"] as? [[String: Any]] ?? []
            change(&manifests)
            root["manifests"] = manifests
            let temporary = "\(path)/index-\(UInt64.random(in: 0 ... .max))"
            try JSONSerialization.data(withJSONObject: root).write(to: URL(fileURLWithPath: temporary))
            guard rename(temporary, url.path) == 0 else { throw CocoaError(.fileWriteUnknown) }
        }
    }

    /// Names a manifest, with the annotation of the OCI specification as skopeo does.
    func name(_ target: Descriptor, _ name: String, annotation: String = "org.opencontainers.image.ref.name") throws {
        try editIndex { manifests in
            manifests.removeAll { ($0["annotations"] as? [String: String])?[annotation] == name }
            manifests.append([
                "mediaType": target.mediaType.rawValue, "digest": target.digest.description, "size": target.size,
                "annotations": [annotation: name],
            ])
        }
    }

    func removeName(_ name: String) throws {
        try editIndex { manifests in
            manifests.removeAll { ($0["annotations"] as? [String: String])?.values.contains(name) ?? false }
        }
    }

    /// The manifests of `index.json`.
    func index() throws -> [[String: Any]] {
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(path)/index.json"))
        let root = try JSONSerialization.jsonObject(with: data) as? [String: Any]
        return root?["manifests"] as? [[String: Any]] ?? []
    }
}

/// A store on disk under the conformance suite, changed as by other programs.
struct OnDiskBackend: ConformanceBackend {
    let layout: Layout
    let onDisk: OnDiskContentStore
    var store: any ContentStore { onDisk }
    let features = Set(ConformanceFeature.allCases)

    init() async throws {
        layout = try Layout()
        onDisk = try await layout.open()
    }

    func put(_ bytes: [UInt8], as digest: Digest) async throws { try layout.put(bytes, as: digest) }
    func removeContent(_ digest: Digest) async throws { try layout.remove(digest) }
    func setImage(_ reference: Reference, to target: Descriptor) async throws {
        try layout.name(target, reference.description)
    }
    func removeImage(_ reference: Reference) async throws { try layout.removeName(reference.description) }
    func tearDown() async throws { await onDisk.shutdown() }
}

/// A store in memory under the conformance suite. Only the store itself can change it.
struct InMemoryBackend: ConformanceBackend {
    let memory = InMemoryContentStore()
    var store: any ContentStore { memory }
    let features = Set(ConformanceFeature.allCases).subtracting([.absentTargets])

    func put(_ bytes: [UInt8], as digest: Digest) async throws { try memory.add(bytes, algorithm: digest.algorithm) }
    func removeContent(_ digest: Digest) async throws { try await memory.remove(digest) }
    func setImage(_ reference: Reference, to target: Descriptor) async throws {
        try await memory.tag(target, as: reference)
    }
    func removeImage(_ reference: Reference) async throws { try await memory.untag(reference) }
    func tearDown() async throws {}
}
