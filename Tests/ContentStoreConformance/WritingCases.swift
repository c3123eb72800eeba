import ContentStore
import NIOCore
import OCIDistribution

extension ContentStoreConformance {
    static let writingCases: [ConformanceCase] = [
        writing("what was written can be read") { store in
            var sample = SampleContent(seed: 60)
            let blob = sample.layer(size: 1_000_003)
            let writer = try await store.beginWrite(blob.digest, size: Int64(blob.bytes.count))
            var rest = ByteBuffer(bytes: blob.bytes)
            while let piece = rest.readSlice(length: min(99_991, rest.readableBytes)), piece.readableBytes > 0 {
                try await writer.append(piece)
                try requireEqual(writer.offset, Int64(rest.readerIndex), "offset")
                try require(try await store.info(blob.digest) == nil, "it is not visible before the commit")
            }
            let info = try await writer.commit()
            try requireEqual(info.digest, blob.digest, "digest")
            try requireEqual(info.size, Int64(blob.bytes.count), "size")
            let content = try requireValue(try await store.open(blob.digest), "open right after the commit")
            try require(try await all(content) == blob.bytes, "the bytes are the same")
        },

        writing("the size need not be known") { store in
            let blob = SampleContent.Blob(Array("without a size".utf8))
            let writer = try await store.beginWrite(blob.digest, size: nil)
            try await writer.append(ByteBuffer(bytes: blob.bytes))
            _ = try await writer.commit()
            try requireEqual(try await store.info(blob.digest)?.size, 14, "size")
        },

        writing("wrong bytes are refused") { store in
            let blob = SampleContent.Blob(Array("the right bytes".utf8))
            let writer = try await store.beginWrite(blob.digest, size: Int64(blob.bytes.count))
            try await writer.append(ByteBuffer(string: "the wrong bytes"))
            let actual = Digest.hash(.sha256, of: Array("the wrong bytes".utf8))
            try await requireError(.digestMismatch(expected: blob.digest, actual: actual)) {
                _ = try await writer.commit()
            }
            try require(try await store.info(blob.digest) == nil, "nothing is visible")
            await writer.abort()
        },

        writing("too many bytes are refused at once") { store in
            let blob = SampleContent.Blob(Array("1234".utf8))
            let writer = try await store.beginWrite(blob.digest, size: 4)
            try await writer.append(ByteBuffer(string: "123"))
            try await requireError(.sizeMismatch(blob.digest, expected: 4, actual: 5)) {
                try await writer.append(ByteBuffer(string: "45"))
            }
            await writer.abort()
            try require(try await store.info(blob.digest) == nil, "nothing is visible")
        },

        writing("too few bytes are refused") { store in
            let blob = SampleContent.Blob(Array("1234".utf8))
            let writer = try await store.beginWrite(blob.digest, size: 4)
            try await writer.append(ByteBuffer(string: "123"))
            try await requireError(.sizeMismatch(blob.digest, expected: 4, actual: 3)) {
                _ = try await writer.commit()
            }
            try require(try await store.info(blob.digest) == nil, "nothing is visible")
        },

        writing("an aborted write leaves nothing") { store in
            let blob = SampleContent.Blob(Array("aborted".utf8))
            let writer = try await store.beginWrite(blob.digest, size: nil)
            try await writer.append(ByteBuffer(bytes: blob.bytes))
            await writer.abort()
            await writer.abort()
            try require(try await store.info(blob.digest) == nil, "nothing is visible")
            try await requireError(.writerClosed) { try await writer.append(ByteBuffer(string: "x")) }
            try await requireError(.writerClosed) { _ = try await writer.commit() }
            // The digest can be written anew.
            try await store.write(ByteBuffer(bytes: blob.bytes), as: blob.digest)
            try require(try await store.info(blob.digest) != nil, "it is there now")
        },

        writing("a committed writer is closed") { store in
            let blob = SampleContent.Blob(Array("committed".utf8))
            let writer = try await store.beginWrite(blob.digest, size: nil)
            try await writer.append(ByteBuffer(bytes: blob.bytes))
            _ = try await writer.commit()
            try await requireError(.writerClosed) { try await writer.append(ByteBuffer(string: "x")) }
            try await requireError(.writerClosed) { _ = try await writer.commit() }
            await writer.abort()
            try require(try await store.info(blob.digest) != nil, "an abort after the commit changes nothing")
        },

        writing("concurrent writers of one digest all succeed") { store in
            var sample = SampleContent(seed: 61)
            let blob = sample.layer(size: 200_000)
            try await withThrowingTaskGroup(of: ContentInfo.self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        let writer = try await store.beginWrite(blob.digest, size: Int64(blob.bytes.count))
                        var rest = ByteBuffer(bytes: blob.bytes)
                        while let piece = rest.readSlice(length: min(32_768, rest.readableBytes)),
                            piece.readableBytes > 0
                        {
                            try await writer.append(piece)
                        }
                        return try await writer.commit()
                    }
                }
                for try await info in group { try requireEqual(info.size, 200_000, "size") }
            }
            let content = try requireValue(try await store.open(blob.digest), "open")
            try require(try await all(content) == blob.bytes, "the bytes are the same")
        },

        writing("concurrent writers of many digests all succeed") { store in
            var sample = SampleContent(seed: 62)
            let blobs = (0..<40).map { sample.layer(size: 1000 + $0 * 37) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for blob in blobs {
                    group.addTask { try await store.write(ByteBuffer(bytes: blob.bytes), as: blob.digest) }
                }
                try await group.waitForAll()
            }
            for blob in blobs {
                let content = try requireValue(try await store.open(blob.digest), "open")
                try requireEqual(try await all(content), blob.bytes, "bytes")
            }
        },

        writing("what is present can be written again") { store in
            let blob = SampleContent.Blob(Array("again and again".utf8))
            for _ in 0..<3 { try await store.write(ByteBuffer(bytes: blob.bytes), as: blob.digest) }
            let content = try requireValue(try await store.open(blob.digest), "open")
            try requireEqual(try await all(content), blob.bytes, "bytes")
        },

        writing("a written manifest is a manifest") { store in
            var sample = SampleContent(seed: 63)
            let image = sample.image()
            for blob in image.blobs.reversed() {
                try await store.write(ByteBuffer(bytes: blob.bytes), as: blob.digest)
            }
            try requireEqual(try await store.info(image.manifest.digest)?.mediaType, .imageManifest, "media type")
            try requireEqual(try await store.info(image.config.digest)?.mediaType, .octetStream, "config")
        },

        writing("names are given, moved and taken away") { store in
            var sample = SampleContent(seed: 64)
            let first = sample.image()
            let second = sample.image()
            for blob in first.blobs + second.blobs {
                try await store.write(ByteBuffer(bytes: blob.bytes), as: blob.digest)
            }
            let name = reference("registry.test/tagged:v1")
            try await store.tag(first.manifest.descriptor, as: name)
            try requireEqual(try await store.resolve(name)?.digest, first.manifest.digest, "given")
            try await store.tag(second.manifest.descriptor, as: name)
            try requireEqual(try await store.resolve(name)?.digest, second.manifest.digest, "moved")
            try requireEqual(try await store.images().count, 1, "number of images")
            try await store.untag(name)
            try require(try await store.resolve(name) == nil, "taken away")
            try await store.untag(name)
            try requireEqual(try await store.images(), [], "no images are left")
        },

        writing("only what is present can be named, and only with a tag or digest") { store in
            var sample = SampleContent(seed: 65)
            let image = sample.image()
            try await requireError(.absent(image.manifest.digest)) {
                try await store.tag(image.manifest.descriptor, as: reference("registry.test/absent:1"))
            }
            for blob in image.blobs { try await store.write(ByteBuffer(bytes: blob.bytes), as: blob.digest) }
            let bare = reference("registry.test/absent")
            try await requireError(.untaggable(bare)) { try await store.tag(image.manifest.descriptor, as: bare) }
        },

        writing("concurrent changes of names are all kept") { store in
            var sample = SampleContent(seed: 66)
            let image = sample.image()
            for blob in image.blobs { try await store.write(ByteBuffer(bytes: blob.bytes), as: blob.digest) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<24 {
                    group.addTask {
                        try await store.tag(
                            image.manifest.descriptor, as: reference("registry.test/many:t\(number)"))
                    }
                }
                try await group.waitForAll()
            }
            try requireEqual(try await store.images().count, 24, "number of images")
        },

        writing("removed content is absent, removing it twice is no error") { store in
            let blob = SampleContent.Blob(Array("short-lived".utf8))
            try await store.write(ByteBuffer(bytes: blob.bytes), as: blob.digest)
            try await store.remove(blob.digest)
            try require(try await store.info(blob.digest) == nil, "it is absent")
            try require(try await store.open(blob.digest) == nil, "it cannot be opened")
            try await store.remove(blob.digest)
        },

        ConformanceCase("writes become events", needs: [.writing]) { backend in
            let store = try requireValue(backend.store as? any WritableContentStore, "a writable store")
            var sample = SampleContent(seed: 67)
            let image = sample.image()
            let recorder = EventRecorder(store)
            defer { recorder.stop() }
            try await recorder.wait("the snapshot") { $0.isComplete }
            for blob in image.blobs.reversed() {
                try await store.write(ByteBuffer(bytes: blob.bytes), as: blob.digest)
            }
            let name = reference("registry.test/events:1")
            try await store.tag(image.manifest.descriptor, as: name)
            try await recorder.wait("content and name") {
                image.digests.isSubset(of: $0.contents.keys) && $0.images[name] == image.manifest.digest
            }
            try await store.untag(name)
            try await recorder.wait("the removed name") { $0.images[name] == nil }
            try await store.remove(image.layers[0].digest)
            try await recorder.wait("the removed layer") { $0.contents[image.layers[0].digest] == nil }
        },
    ]

    private static func writing(
        _ name: String, run: @escaping @Sendable (any WritableContentStore) async throws -> Void
    ) -> ConformanceCase {
        ConformanceCase(name, needs: [.writing]) { backend in
            try await run(try requireValue(backend.store as? any WritableContentStore, "a writable store"))
        }
    }
}

func requireError(_ expected: ContentStoreError, _ body: () async throws -> Void) async throws {
    do {
        try await body()
    } catch let error as ContentStoreError {
        return try requireEqual(error, expected, "error")
    }
    throw ConformanceFailure("expected the error \(expected), got none")
}
