import ContentStore
import NIOCore
import OCIDistribution

extension ContentStoreConformance {
    static let readingCases: [ConformanceCase] = [
        ConformanceCase("an empty store has nothing") { backend in
            let store = backend.store
            let digest = SampleContent.Blob([1, 2, 3]).digest
            try require(try await store.info(digest) == nil, "info of absent content is nil")
            try require(try await store.open(digest) == nil, "open of absent content is nil")
            try require(try await store.resolve(reference("registry.test/a:1")) == nil, "an unknown tag is nil")
            try requireEqual(try await store.images(), [], "images")
        },

        ConformanceCase("content comes back byte for byte") { backend in
            var sample = SampleContent(seed: 1)
            let image = sample.image(layers: [sample.layer(size: 1), sample.layer(size: 300_001)])
            try await hold(image, in: backend)
            for blob in image.blobs {
                try await eventually("\(blob.digest) is present") { try await backend.store.info(blob.digest) != nil }
                let content = try requireValue(try await backend.store.open(blob.digest), "open of \(blob.digest)")
                try requireEqual(content.info.size, Int64(blob.bytes.count), "size")
                try requireEqual(try await all(content), blob.bytes, "bytes of \(blob.digest)")
                try requireEqual(content.info.digest, blob.digest, "digest")
            }
        },

        ConformanceCase("ranges of content are the right bytes") { backend in
            var sample = SampleContent(seed: 2)
            let layer = sample.layer(size: 100_000)
            let image = sample.image(layers: [layer])
            try await hold(image, in: backend)
            try await eventually("the layer is present") { try await backend.store.info(layer.digest) != nil }
            for range: Range<Int64> in [0..<1, 0..<100_000, 1..<2, 99_999..<100_000, 4096..<70_000, 5..<5] {
                let content = try requireValue(try await backend.store.open(layer.digest), "open")
                var bytes: [UInt8] = []
                for try await piece in content.read(range, chunkSize: 7_777) { bytes += piece.readableBytesView }
                try requireEqual(bytes, Array(layer.bytes[Int(range.lowerBound)..<Int(range.upperBound)]), "\(range)")
            }
            let content = try requireValue(try await backend.store.open(layer.digest), "open")
            var bytes: [UInt8] = []
            for try await piece in content.read(99_000..<500_000) { bytes += piece.readableBytesView }
            try requireEqual(bytes.count, 1000, "a range beyond the end is clamped")
        },

        ConformanceCase("content of several megabytes comes back") { backend in
            var sample = SampleContent(seed: 3)
            let image = sample.image(layers: [sample.layer(size: 5_000_017)])
            try await hold(image, in: backend)
            let layer = image.layers[0]
            try await eventually("the layer is present") { try await backend.store.info(layer.digest) != nil }
            let content = try requireValue(try await backend.store.open(layer.digest), "open")
            try require(try await all(content) == layer.bytes, "5,000,017 bytes are the same")
        },

        ConformanceCase("empty content is content", needs: [.emptyContent, .unreferencedContent]) { backend in
            let blob = SampleContent.Blob([])
            try await backend.put(blob)
            try await eventually("it is present") { try await backend.store.info(blob.digest) != nil }
            let content = try requireValue(try await backend.store.open(blob.digest), "open")
            try requireEqual(content.info.size, 0, "size")
            try requireEqual(try await all(content), [], "bytes")
        },

        ConformanceCase("content may have SHA-512 digests", needs: [.sha512, .unreferencedContent]) { backend in
            let blob = SampleContent.Blob([9, 8, 7], algorithm: .sha512)
            try await backend.put(blob)
            try await eventually("it is present") { try await backend.store.info(blob.digest) != nil }
            let content = try requireValue(try await backend.store.open(blob.digest), "open")
            try requireEqual(try await all(content), [9, 8, 7], "bytes")
            let twin = SampleContent.Blob([9, 8, 7])
            try require(try await backend.store.info(twin.digest) == nil, "the SHA-256 name is another name")
        },

        ConformanceCase("media types are found from the bytes") { backend in
            var sample = SampleContent(seed: 4)
            let oci = sample.image()
            let docker = sample.image(docker: true)
            let bare = SampleContent.manifest(config: oci.config, layers: oci.layers, saysMediaType: false)
            let index = SampleContent.index([oci])
            let list = SampleContent.index([docker], docker: true)
            for blob in oci.blobs + docker.blobs + [bare, index, list] { try await backend.put(blob) }
            for (position, blob) in [oci.manifest, docker.manifest, bare, index, list].enumerated() {
                try await backend.setImage(reference("registry.test/types:\(position)"), to: blob.descriptor)
            }
            let expected: [(SampleContent.Blob, MediaType)] = [
                (oci.manifest, .imageManifest), (docker.manifest, .dockerManifest), (bare, .imageManifest),
                (index, .imageIndex), (list, .dockerManifestList), (oci.config, .octetStream),
                (docker.config, .octetStream), (oci.layers[0], .octetStream),
            ]
            for (blob, mediaType) in expected {
                try await eventuallyEqual(mediaType, "media type of \(blob.digest)") {
                    try await backend.store.info(blob.digest)?.mediaType
                }
                let content = try requireValue(try await backend.store.open(blob.digest), "open")
                try requireEqual(content.info.mediaType, mediaType, "media type of open content")
            }
        },

        ConformanceCase("JSON over 4 MiB is never taken for a manifest", needs: [.unreferencedContent]) { backend in
            var sample = SampleContent(seed: 5)
            let image = sample.image()
            let padding = [UInt8](repeating: 0x20, count: Manifest.maximumSize)
            let blob = SampleContent.Blob(image.manifest.bytes + padding)
            try await backend.put(blob)
            try await eventuallyEqual(.octetStream, "media type") {
                try await backend.store.info(blob.digest)?.mediaType
            }
        },

        ConformanceCase("what is open stays readable after it was removed") { backend in
            var sample = SampleContent(seed: 6)
            let image = sample.image(layers: [sample.layer(size: 200_000)])
            try await hold(image, in: backend)
            let layer = image.layers[0]
            try await eventually("the layer is present") { try await backend.store.info(layer.digest) != nil }
            let content = try requireValue(try await backend.store.open(layer.digest), "open")
            // A stream may have to end; it must not give wrong bytes.
            if case .stream = content.body { return }
            try await backend.removeImage(reference("registry.test/sample:1"))
            try await backend.removeContent(layer.digest)
            try await eventually("it is absent") { try await backend.store.info(layer.digest) == nil }
            try require(try await backend.store.open(layer.digest) == nil, "it cannot be opened again")
            try requireEqual(try await all(content), layer.bytes, "bytes of what was open")
        },

        ConformanceCase("immediate answers agree with the others", needs: [.immediateAnswers]) { backend in
            var sample = SampleContent(seed: 7)
            let image = sample.image()
            try await hold(image, in: backend)
            let name = reference("registry.test/sample:1")
            // All of it: content may be noticed in any order.
            try await eventually("the image is known") {
                for blob in image.blobs {
                    guard try await backend.store.info(blob.digest) != nil else { return false }
                }
                return try await backend.store.resolve(name) != nil
            }
            let absent = SampleContent.Blob([77]).digest
            try requireEqual(backend.store.infoImmediately(absent), .absent, "info of absent content")
            guard case .absent = backend.store.openImmediately(absent) else {
                throw ConformanceFailure("open of absent content is absent")
            }
            try requireEqual(
                backend.store.resolveImmediately(reference("registry.test/sample:2")), .absent, "unknown tag")
            try requireEqual(
                backend.store.resolveImmediately(name).value, try await backend.store.resolve(name), "resolve")
            for blob in image.blobs {
                try requireEqual(
                    backend.store.infoImmediately(blob.digest).value, try await backend.store.info(blob.digest), "info")
                guard case .found(let content) = backend.store.openImmediately(blob.digest) else {
                    throw ConformanceFailure("open of \(blob.digest) finds it")
                }
                try requireEqual(try await all(content), blob.bytes, "bytes")
            }
        },

        ConformanceCase("many readers at once get the right bytes") { backend in
            var sample = SampleContent(seed: 8)
            let image = sample.image(layers: (0..<6).map { _ in sample.layer(size: 40_000) })
            try await hold(image, in: backend)
            for blob in image.blobs {
                try await eventually("\(blob.digest) is present") { try await backend.store.info(blob.digest) != nil }
            }
            let store = backend.store
            try await withThrowingTaskGroup(of: Void.self) { group in
                for reader in 0..<64 {
                    let blob = image.blobs[reader % image.blobs.count]
                    group.addTask {
                        let content = try requireValue(try await store.open(blob.digest), "open")
                        try requireEqual(try await all(content), blob.bytes, "bytes")
                    }
                }
                try await group.waitForAll()
            }
        },
    ]
}

/// Makes an image present and names it, so that no backend takes it for garbage.
func hold(
    _ image: SampleContent.Image, in backend: any ConformanceBackend, as name: String = "registry.test/sample:1"
) async throws {
    try await backend.put(image)
    try await backend.setImage(reference(name), to: image.manifest.descriptor)
}

func all(_ content: OpenContent) async throws -> [UInt8] {
    Array(try await content.collect(upTo: 64 << 20).readableBytesView)
}

/// A reference in the words of a test.
func reference(_ text: String) -> Reference {
    guard let reference = Reference(text) else { preconditionFailure("the suite has a bad reference: \(text)") }
    return reference
}
