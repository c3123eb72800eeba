import ContentStore
import ContentStoreConformance
import Foundation
import NIOConcurrencyHelpers
import OCIDistribution
import Testing

@Suite struct VerifyTests {
    private var sample = SampleContent(seed: 300)
    private let layout: Layout

    init() throws { layout = try Layout() }

    /// Changes a byte without a trace: size and times stay as they were, as when a disk rots.
    private func rot(_ digest: Digest) throws {
        let path = layout.file(digest)
        var status = stat()
        #expect(stat(path, &status) == 0)
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try handle.seek(toOffset: UInt64(status.st_size / 2))
        let byte = try #require(try handle.read(upToCount: 1)?.first)
        try handle.seek(toOffset: UInt64(status.st_size / 2))
        try handle.write(contentsOf: Data([byte ^ 0x55]))
        try handle.close()
        var times = [status.st_atim, status.st_mtim]
        #expect(utimensat(AT_FDCWD, path, &times, 0) == 0)
    }

    @Test mutating func aGoodLayoutIsSound() async throws {
        let image = sample.image(layers: [sample.layer(size: 3_000_000), sample.layer()])
        let unused = sample.layer()
        try layout.put(image)
        try layout.put(unused)
        try layout.name(image.manifest.descriptor, "r.test/x:1")
        let store = try await layout.open(watch: false)
        let seen = NIOLockedValueBox<[VerificationProgress]>([])
        let report = try await store.verify { progress in seen.withLockedValue { $0.append(progress) } }
        #expect(report.isSound)
        #expect(report.isComplete)
        #expect(Set(report.blobs.map(\.digest)) == image.digests.union([unused.digest]))
        #expect(report.blobs.allSatisfy { $0.outcome == .sound })
        #expect(report.blobs.filter { !$0.isReferenced }.map(\.digest) == [unused.digest])
        #expect(report.layers.map(\.outcome) == [.sound, .sound])
        let last = try #require(seen.withLockedValue { $0.max { $0.checkedBlobs < $1.checkedBlobs } })
        #expect(last.checkedBlobs == 5)
        #expect(last.totalBlobs == 5)
        let total = (image.blobs + [unused]).reduce(Int64(0)) { $0 + $1.descriptor.size }
        #expect(seen.withLockedValue { $0.map(\.checkedBytes).max() } == total)
        #expect(last.totalBytes == total)
    }

    @Test mutating func whatIsBadIsFoundAndNotServedAgain() async throws {
        let image = sample.image(layers: (0..<5).map { _ in sample.layer() })
        try layout.put(image)
        try layout.name(image.manifest.descriptor, "r.test/x:1")
        let daemon = try await layout.open()
        let store = try await layout.open(watch: false)
        let recorder = EventRecorder(daemon)
        defer { recorder.stop() }
        try await recorder.wait("everything") { image.digests.isSubset(of: $0.contents.keys) }
        let altered = image.layers[0].digest
        try rot(altered)
        let truncated = image.layers[1].digest
        #expect(truncate(layout.file(truncated), 1000) == 0)
        try layout.remove(image.layers[2].digest)
        let linked = image.layers[3].digest
        try layout.remove(linked)
        try FileManager.default.createSymbolicLink(atPath: layout.file(linked), withDestinationPath: "/etc/passwd")

        let report = try await store.verify()
        #expect(!report.isSound)
        #expect(!report.isComplete)
        #expect(report.isRemembered)
        let outcomes = Dictionary(uniqueKeysWithValues: report.blobs.map { ($0.digest, $0.outcome) })
        guard case .altered? = outcomes[altered] else { throw ConformanceFailure("\(outcomes)") }
        #expect(outcomes[truncated] == .truncated(expected: 3000))
        #expect(outcomes[image.layers[2].digest] == .missing)
        #expect(outcomes[linked] == .unreadable("it is not a regular file"))
        #expect(outcomes[image.layers[4].digest] == .sound)
        #expect(report.layers.filter { $0.outcome == .sound }.map(\.layer) == [image.layers[4].digest])

        let bad = [altered, truncated, image.layers[2].digest, linked]
        for digest in bad { #expect(try await store.open(digest) == nil) }
        // The daemon learns of it as well, and one that starts later knows.
        try await recorder.wait("damaged blobs are not served") { view in bad.allSatisfy { view.contents[$0] == nil } }
        let later = try await layout.open(watch: false)
        for digest in bad { #expect(try await later.open(digest) == nil) }

        // Replaced by good files they are served again.
        try layout.remove(linked)
        for layer in image.layers { try layout.put(layer) }
        try await recorder.wait("what is good is back") { image.digests.isSubset(of: $0.contents.keys) }
        let again = try await store.verify()
        #expect(again.isSound)
        #expect(again.isComplete)
        for digest in bad { #expect(try await store.open(digest) != nil) }
    }

    @Test mutating func anAlteredManifestIsFound() async throws {
        let image = sample.image()
        try layout.put(image)
        try layout.name(image.manifest.descriptor, "r.test/x:1")
        let store = try await layout.open(watch: false)
        try rot(image.manifest.digest)
        let report = try await store.verify()
        #expect(!report.isSound)
        #expect(try await store.open(image.manifest.digest) == nil)
        let content = try await store.contents(of: try await store.images()[0])
        #expect(content == [])
    }

    @Test mutating func aLayerThatInflatesToSomethingElseIsFound() async throws {
        let plain = sample.bytes(70_000)
        let good = SampleContent.Blob(gzip(plain), mediaType: .layerGzip)
        let other = SampleContent.Blob(gzip(sample.bytes(70_000)), mediaType: .layerGzip)
        let cut = SampleContent.Blob(Array(gzip(plain).dropLast(100)), mediaType: .layerGzip)
        let zstd = SampleContent.Blob([0x28, 0xB5, 0x2F, 0xFD, 1, 2, 3, 4], mediaType: .layerZstd)
        let layers = [good, other, cut, zstd]
        let diffID = Digest.hash(.sha256, of: plain)
        let ids = layers.map { _ in #""\#(diffID)""# }.joined(separator: ",")
        let config = SampleContent.Blob(
            Array(#"{"rootfs":{"type":"layers","diff_ids":[\#(ids)]}}"#.utf8), mediaType: .imageConfig)
        let manifest = SampleContent.manifest(config: config, layers: layers)
        for blob in layers + [config, manifest] { try layout.put(blob) }
        try layout.name(manifest.descriptor, "r.test/x:1")
        let store = try await layout.open(watch: false)
        let report = try await store.verify()
        #expect(report.blobs.allSatisfy { $0.outcome == .sound })
        #expect(!report.isSound)
        let outcomes = Dictionary(uniqueKeysWithValues: report.layers.map { ($0.layer, $0.outcome) })
        #expect(outcomes[good.digest] == .sound)
        guard case .mismatch? = outcomes[other.digest] else { throw ConformanceFailure("\(outcomes)") }
        guard case .damaged? = outcomes[cut.digest] else { throw ConformanceFailure("\(outcomes)") }
        #expect(outcomes[zstd.digest] == .unsupported("zstd"))
        #expect(report.layers.allSatisfy { $0.diffID == diffID && $0.manifest == manifest.digest })
    }

    /// The type of a config does not decide whether its diffIDs are compared; one without any is said to be unchecked.
    @Test(arguments: [true, false]) mutating func aConfigOfAnotherType(hasDiffIDs: Bool) async throws {
        let plain = sample.bytes(7000)
        let layer = SampleContent.Blob(gzip(plain), mediaType: .layerGzip)
        let diffID = Digest.hash(of: sample.bytes(10))
        let config = SampleContent.Blob(
            Array((hasDiffIDs ? #"{"rootfs":{"type":"layers","diff_ids":["\#(diffID)"]}}"# : "{}").utf8),
            mediaType: .octetStream)
        let manifest = SampleContent.manifest(config: config, layers: [layer])
        for blob in [layer, config, manifest] { try layout.put(blob) }
        try layout.name(manifest.descriptor, "r.test/x:1")
        let report = try await layout.open(watch: false).verify()
        #expect(report.layers.count == 1)
        if hasDiffIDs {
            #expect(report.layers.first?.outcome == .mismatch(actual: Digest.hash(of: plain)))
        } else {
            guard case .unchecked? = report.layers.first?.outcome else { throw ConformanceFailure("\(report.layers)") }
        }
    }

    @Test mutating func aConfigThatDoesNotFitItsManifestIsSaid() async throws {
        let image = sample.image()
        let manifest = SampleContent.manifest(config: image.config, layers: [image.layers[0]])
        for blob in image.blobs + [manifest] { try layout.put(blob) }
        try layout.name(manifest.descriptor, "r.test/x:1")
        let report = try await layout.open(watch: false).verify([image.layers[0].digest])
        #expect(report.blobs.map(\.digest) == [image.layers[0].digest])
        let outcomes = report.layers.filter { $0.manifest == manifest.digest }.map(\.outcome)
        #expect(outcomes == [.unchecked("the image config names 2 layers, the manifest 1")])
    }

    @Test mutating func oneThatIsNotThereIsMissing() async throws {
        let digest = sample.layer().digest
        let report = try await layout.open(watch: false).verify([digest])
        #expect(report.blobs.map(\.outcome) == [.missing])
    }

    @Test mutating func itCanBeCancelled() async throws {
        for _ in 0..<4 { try layout.put(sample.layer(size: 4_000_000)) }
        let store = try await layout.open(watch: false)
        let task = NIOLockedValueBox<Task<VerificationReport, any Error>?>(nil)
        task.withLockedValue {
            $0 = Task { try await store.verify { _ in task.withLockedValue { $0 }?.cancel() } }
        }
        let running = try #require(task.withLockedValue { $0 })
        await #expect(throws: CancellationError.self) { try await running.value }
    }

    /// A gzip member of stored blocks (RFC 1951, 3.2.4).
    private func gzip(_ bytes: [UInt8]) -> [UInt8] {
        var result: [UInt8] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255]
        var rest = bytes[...]
        repeat {
            let block = rest.prefix(65_535)
            rest = rest.dropFirst(block.count)
            let length = UInt16(block.count)
            result.append(rest.isEmpty ? 1 : 0)
            for value in [length, ~length] { result += [UInt8(truncatingIfNeeded: value), UInt8(value >> 8)] }
            result += block
        } while !rest.isEmpty
        var crc: UInt32 = ~0
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0xEDB8_8320 : crc >> 1 }
        }
        for value in [~crc, UInt32(truncatingIfNeeded: bytes.count)] {
            for shift: UInt32 in [0, 8, 16, 24] { result.append(UInt8(truncatingIfNeeded: value >> shift)) }
        }
        return result
    }
}
