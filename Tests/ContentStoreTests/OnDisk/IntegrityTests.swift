import ContentStore
import ContentStoreConformance
import Foundation
import NIOCore
import OCIDistribution
import TestSupport
import Testing

/// Blobs that are not what they should be.
@Suite struct IntegrityTests {
    private var sample = SampleContent(seed: 200)
    private let layout: Layout

    init() throws { layout = try Layout() }

    private func isServed(_ digest: Digest, by store: OnDiskContentStore) async throws -> Bool {
        try await store.open(digest) != nil
    }

    @Test mutating func aManifestWithOtherBytesIsNotServed() async throws {
        let image = sample.image()
        let other = sample.image()
        try layout.put(image)
        try layout.put(other.manifest.bytes, as: image.manifest.digest)
        try layout.name(image.manifest.descriptor, "r.test/lying:1")
        let store = try await layout.open()
        #expect(try await !isServed(image.manifest.digest, by: store))
        #expect(try await isServed(image.layers[0].digest, by: store))
        // The name is known, but leads nowhere; what it would lead to has no source.
        #expect(try await store.resolve(Reference(parsing: "r.test/lying:1"))?.digest == image.manifest.digest)
        #expect(try await store.info(image.layers[0].digest)?.sources == [])
    }

    @Test mutating func aBlobOfAnotherSizeThanTheManifestSaysIsNotServed() async throws {
        let image = sample.image(layers: [sample.layer(), sample.layer(), sample.layer()])
        try layout.put(image)
        try layout.put(Array(image.layers[0].bytes.dropLast()), as: image.layers[0].digest)
        try layout.put(image.layers[1].bytes + [0], as: image.layers[1].digest)
        try layout.put([], as: image.layers[2].digest)
        try layout.name(image.manifest.descriptor, "r.test/x:1")
        let store = try await layout.open()
        for layer in image.layers { #expect(try await !isServed(layer.digest, by: store)) }
        let recorder = EventRecorder(store)
        defer { recorder.stop() }
        // A good file in its place is served.
        for layer in image.layers { try layout.put(layer) }
        for layer in image.layers {
            try await recorder.wait("\(layer.digest)") { $0.contents[layer.digest]?.size == 3000 }
            #expect(try await isServed(layer.digest, by: store))
        }
    }

    @Test mutating func aManifestThatLiesAboutAGoodBlobDoesNotHideIt() async throws {
        let layer = sample.layer()
        let image = sample.image(layers: [layer])
        var text = String(decoding: image.manifest.bytes, as: UTF8.self)
        text = text.replacingOccurrences(of: #""size":3000"#, with: #""size":2999"#)
        let liar = SampleContent.Blob(Array(text.utf8), mediaType: .imageManifest)
        for blob in [layer, image.config, liar] { try layout.put(blob) }
        try layout.name(liar.descriptor, "r.test/liar:1")
        let store = try await layout.open()
        // It is hashed first.
        try await eventually("the layer is served") { try await isServed(layer.digest, by: store) }
        #expect(try await store.info(layer.digest)?.size == 3000)
        #expect(try await isServed(liar.digest, by: store))
    }

    @Test mutating func anEmptyFileIsNotServedAsSomethingElse() async throws {
        let blob = sample.layer()
        try layout.put([], as: blob.digest)
        #expect(try await !isServed(blob.digest, by: layout.open()))
    }

    @Test mutating func onlyRegularFilesAreServed() async throws {
        let secret = SampleContent.Blob(Array("root:x:0:0".utf8))
        let outside = "\(layout.path)-secret"
        try Data(secret.bytes).write(to: URL(fileURLWithPath: outside))
        let files = FileManager.default
        try files.createSymbolicLink(atPath: layout.file(secret.digest), withDestinationPath: outside)
        let pipe = sample.layer().digest
        #expect(mkfifo(layout.file(pipe), 0o644) == 0)
        let directory = sample.layer().digest
        try files.createDirectory(atPath: layout.file(directory), withIntermediateDirectories: false)
        let dangling = sample.layer().digest
        try files.createSymbolicLink(atPath: layout.file(dangling), withDestinationPath: "nowhere")
        let inside = sample.layer()
        try layout.put(inside)
        let alias = sample.layer().digest
        try files.createSymbolicLink(atPath: layout.file(alias), withDestinationPath: inside.digest.hex)
        let store = try await layout.open()
        for digest in [secret.digest, pipe, directory, dangling, alias] {
            #expect(try await !isServed(digest, by: store))
        }
        #expect(try await isServed(inside.digest, by: store))
        // One that becomes a link while the store is open.
        try files.removeItem(atPath: layout.file(inside.digest))
        try files.createSymbolicLink(atPath: layout.file(inside.digest), withDestinationPath: outside)
        try await eventually("it is not served") { try await !isServed(inside.digest, by: store) }
    }

    @Test mutating func aLinkInsteadOfTheBlobsDirectoryIsNotFollowed() async throws {
        let blob = sample.layer()
        try layout.put(blob)
        let moved = "\(layout.path)-elsewhere"
        try FileManager.default.moveItem(atPath: "\(layout.path)/blobs/sha256", toPath: moved)
        try FileManager.default.createSymbolicLink(
            atPath: "\(layout.path)/blobs/sha256", withDestinationPath: moved)
        #expect(try await !isServed(blob.digest, by: layout.open()))
    }

    @Test mutating func namesThatAreNoDigestsAreIgnored() async throws {
        let blob = sample.layer()
        try layout.put(blob)
        for name in [".hidden", "abc", blob.digest.hex.uppercased(), "\(blob.digest.hex).tmp", "..x", "\n"] {
            try layout.write("x", to: "blobs/sha256/\(name)")
        }
        try FileManager.default.createDirectory(
            atPath: "\(layout.path)/blobs/md5", withIntermediateDirectories: true)
        try layout.write("x", to: "blobs/md5/d41d8cd98f00b204e9800998ecf8427e")
        let store = try await layout.open()
        var iterator = store.events().makeAsyncIterator()
        var events: [ContentEvent] = []
        while let event = await iterator.next(), event != .snapshotComplete { events.append(event) }
        #expect(events.count == 2)
    }

    @Test mutating func aBlobOverwrittenInPlaceIsNotServedUntilItIsGoodAgain() async throws {
        let layer = sample.layer(size: 10_000)
        let image = sample.image(layers: [layer])
        try layout.put(image)
        try layout.name(image.manifest.descriptor, "r.test/x:1")
        let store = try await layout.open()
        #expect(try await isServed(layer.digest, by: store))
        var bytes = layer.bytes
        bytes[5000] ^= 1
        try overwrite(layer.digest, with: bytes)
        try await eventually("it is not served") { try await !isServed(layer.digest, by: store) }
        try await eventually("it is remembered") { try !records().isEmpty }
        #expect(try await !isServed(layer.digest, by: store))
        // A process that opens the layout anew does not serve it either, although its size is right.
        let other = try await layout.open()
        #expect(try await !isServed(layer.digest, by: other))
        try overwrite(layer.digest, with: layer.bytes)
        try await eventually("it is served") { try await isServed(layer.digest, by: store) }
        try await eventually("by the other as well") { try await isServed(layer.digest, by: other) }
        try await eventually("no record is left") { try records().isEmpty }
    }

    @Test mutating func aManifestAlteredInPlaceIsNotServedFromMemoryEither() async throws {
        let image = sample.image()
        try layout.put(image)
        let store = try await layout.open()
        try await eventually("a small manifest is served from memory") {
            if case .bytes = try await store.open(image.manifest.digest)?.body { true } else { false }
        }
        var bytes = image.manifest.bytes
        bytes[bytes.count - 1] = UInt8(ascii: " ")
        try overwrite(image.manifest.digest, with: bytes)
        try await eventually("it is not served") { try await !isServed(image.manifest.digest, by: store) }
    }

    @Test mutating func aBlobCopiedInPlaceIsServedWhenItIsWhole() async throws {
        let store = try await layout.open()
        let layer = sample.layer(size: 300_000)
        let handle = open(layout.file(layer.digest), O_WRONLY | O_CREAT, 0o644)
        #expect(handle >= 0)
        #expect(write(handle, layer.bytes, 100_000) == 100_000)
        // Another change that is processed shows that this one was as well.
        let other = sample.layer()
        try layout.put(other)
        try await eventually("the other is served") { try await isServed(other.digest, by: store) }
        #expect(try await !isServed(layer.digest, by: store))
        let rest = Array(layer.bytes[100_000...])
        #expect(write(handle, rest, rest.count) == rest.count)
        close(handle)
        try await eventually("it is served") { try await store.info(layer.digest)?.size == 300_000 }
    }

    @Test mutating func aHardLinkIsServedWhenItWasHashed() async throws {
        let store = try await layout.open()
        let layer = sample.layer()
        let beside = "\(layout.path)-beside"
        try Data(layer.bytes).write(to: URL(fileURLWithPath: beside))
        #expect(link(beside, layout.file(layer.digest)) == 0)
        try await eventually("it is served") { try await isServed(layer.digest, by: store) }
        let wrong = sample.layer().digest
        #expect(link(beside, layout.file(wrong)) == 0)
        try await eventually("the wrong one was found") { try !records().isEmpty }
        #expect(try await !isServed(wrong, by: store))
    }

    private func overwrite(_ digest: Digest, with bytes: [UInt8]) throws {
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: layout.file(digest)))
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: Data(bytes))
        try handle.close()
    }

    private func records() throws -> [String] {
        let path = "\(layout.path)/.spegel/quarantine"
        guard FileManager.default.fileExists(atPath: path) else { return [] }
        return try FileManager.default.contentsOfDirectory(atPath: path)
    }
}
