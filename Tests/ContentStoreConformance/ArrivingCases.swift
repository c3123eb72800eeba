import ContentStore
import NIOCore
import OCIDistribution

extension ContentStoreConformance {
    static let arrivingCases: [ConformanceCase] = [
        ConformanceCase("content can be read while it is written", needs: [.writing, .arrivingContent]) { backend in
            let store = try writable(backend)
            var sample = SampleContent(seed: 80)
            let blob = sample.layer(size: 3_000_001)
            try require(try await store.openArriving(blob.digest) == nil, "nobody writes it")
            let writer = try await store.beginWrite(blob.digest, size: Int64(blob.bytes.count))
            try await writer.append(ByteBuffer(bytes: blob.bytes[..<1_500_000]))
            let arriving = try requireValue(try await store.openArriving(blob.digest), "it arrives")
            try requireEqual(arriving.digest, blob.digest, "digest")
            try requireEqual(arriving.size, 3_000_001, "size")
            try requireEqual(arriving.status, .arriving(bytes: 1_500_000), "half of it is there")
            // One that reads all, and one that begins beyond what is there.
            let stream = arriving.stream(stallTimeout: .seconds(300))
            async let whole = bytes(of: stream, 0..<3_000_001)
            async let end = bytes(of: stream, 2_000_000..<3_000_001)
            for try await piece in stream.open(0..<10) {
                try requireEqual(piece.readableBytes, 0, "the first piece is empty")
                break
            }
            try await writer.append(ByteBuffer(bytes: blob.bytes[1_500_000..<2_500_000]))
            try await writer.append(ByteBuffer(bytes: blob.bytes[2_500_000...]))
            _ = try await writer.commit()
            try require(try await whole == blob.bytes, "all bytes, as they came")
            try require(try await end == Array(blob.bytes[2_000_000...]), "the bytes of a range")
            try requireEqual(arriving.status, .complete, "status after the commit")
            try require(try await store.openArriving(blob.digest) == nil, "what is there does not arrive")
        },

        ConformanceCase("who reads what is given up hears of it", needs: [.writing, .arrivingContent]) { backend in
            let store = try writable(backend)
            var sample = SampleContent(seed: 81)
            let blob = sample.layer(size: 100_000)
            let writer = try await store.beginWrite(blob.digest, size: 100_000)
            try await writer.append(ByteBuffer(bytes: blob.bytes[..<50_000]))
            let arriving = try requireValue(try await store.openArriving(blob.digest), "it arrives")
            let stream = arriving.stream(stallTimeout: .seconds(300))
            async let all = bytes(of: stream, 0..<100_000)
            await writer.abort()
            do {
                _ = try await all
                throw ConformanceFailure("the bytes of an aborted write came to an end")
            } catch is ContentStoreError {}
            try await eventually("the arrival has failed") { arriving.status == .failed }
            try require(try await store.openArriving(blob.digest) == nil, "nobody writes it any more")
        },

        ConformanceCase("nobody waits for ever for what does not come", needs: [.writing, .arrivingContent]) {
            backend in
            let store = try writable(backend)
            var sample = SampleContent(seed: 82)
            let blob = sample.layer(size: 100_000)
            let writer = try await store.beginWrite(blob.digest, size: 100_000)
            try await writer.append(ByteBuffer(bytes: blob.bytes[..<50_000]))
            let arriving = try requireValue(try await store.openArriving(blob.digest), "it arrives")
            do {
                _ = try await bytes(of: arriving.stream(stallTimeout: .milliseconds(100)), 0..<100_000)
                throw ConformanceFailure("bytes that were not written came")
            } catch is ContentStoreError {}
            await writer.abort()
        },

        ConformanceCase("what has no size cannot be read before it is there", needs: [.writing, .arrivingContent]) {
            backend in
            let store = try writable(backend)
            let blob = SampleContent.Blob(Array("of unknown size".utf8))
            let writer = try await store.beginWrite(blob.digest, size: nil)
            try await writer.append(ByteBuffer(bytes: blob.bytes))
            try require(try await store.openArriving(blob.digest) == nil, "its size is not known")
            await writer.abort()
        },
    ]

    private static func writable(_ backend: any ConformanceBackend) throws -> any WritableContentStore {
        guard let store = backend.store as? any WritableContentStore else {
            throw ConformanceFailure("the store cannot be written")
        }
        return store
    }

    private static func bytes(of stream: ContentStream, _ range: Range<Int64>) async throws -> [UInt8] {
        var result: [UInt8] = []
        for try await piece in stream.open(range) { result += piece.readableBytesView }
        return result
    }
}
