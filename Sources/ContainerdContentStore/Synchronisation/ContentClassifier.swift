import ContentStore
import GRPCCore
import NIOCore
import NIOPosix
import OCIDistribution

/// Content with the media type and references that were found in its bytes.
struct ClassifiedContent: Sendable {
    var digest: Digest
    var size: Int64
    var mediaType: MediaType
    var children: [Descriptor]
    /// The repositories in its labels.
    var sources: [ContentSource]
}

/// Finds manifests by their bytes, because media types in containerd and in descriptors are not reliable.
struct ContentClassifier: Sendable {
    /// Most concurrent calls.
    static let concurrency = 16
    /// The number of files that one job on the thread pool reads.
    private static let chunkSize = 64
    /// The number of leading bytes that show whether a blob may be JSON.
    private static let probeSize = 64

    let client: ContainerdClient
    /// `nil` when bytes are read through the content service.
    let directory: BlobDirectory?
    let threadPool: NIOThreadPool
    /// Called with content that containerd lists but cannot read; it counts as absent.
    let reportUnreadable: @Sendable (Digest, RPCError) -> Void

    /// Classifies content.
    ///
    /// - Returns: one entry for each piece of content that is present, in no particular order.
    func classify(_ contents: [ContainerdContent]) async throws -> [ClassifiedContent] {
        guard let directory else {
            return try await mapConcurrently(contents, limit: Self.concurrency) { try await self.fromService($0) }
                .compactMap { $0 }
        }
        let chunks = stride(from: 0, to: contents.count, by: Self.chunkSize).map {
            contents[$0..<min($0 + Self.chunkSize, contents.count)]
        }
        let (classified, refused) = try await mapConcurrently(chunks, limit: 4) { chunk in
            try await threadPool.runIfActive { Self.fromFiles(Array(chunk), in: directory) }
        }.reduce(into: ([ClassifiedContent](), [ContainerdContent]())) { result, part in
            result.0 += part.0
            result.1 += part.1
        }
        guard !refused.isEmpty else { return classified }
        return try await classified
            + mapConcurrently(refused, limit: Self.concurrency) { try await self.fromService($0) }.compactMap { $0 }
    }

    /// The second list has content that exists but cannot be opened as a file.
    private static func fromFiles(
        _ contents: [ContainerdContent], in directory: BlobDirectory
    ) -> ([ClassifiedContent], [ContainerdContent]) {
        var result: [ClassifiedContent] = []
        var refused: [ContainerdContent] = []
        result.reserveCapacity(contents.count)
        for content in contents {
            switch directory.open(content.digest, size: content.size) {
            case .absent, .damaged: continue
            case .failed: refused.append(content)
            case .file(let descriptor):
                let file = ContentFile(takingOwnershipOf: descriptor, size: content.size)
                var summary: ManifestSummary?
                if content.size <= ManifestSummary.sizeLimit,
                    let probe = try? file.read(at: 0, count: probeSize), mayBeJSON(probe),
                    let bytes = try? file.read(at: 0, count: Int(content.size))
                {
                    summary = ManifestSummary(bytes.readableBytesView)
                }
                result.append(ClassifiedContent(content, summary))
            }
        }
        return (result, refused)
    }

    private func fromService(_ content: ContainerdContent) async throws -> ClassifiedContent? {
        guard content.size <= ManifestSummary.sizeLimit else { return ClassifiedContent(content, nil) }
        do {
            return try await readFromService(content)
        } catch let error as RPCError where !error.isConnectionError {
            // One damaged blob must not hide all others.
            reportUnreadable(content.digest, error)
            return nil
        }
    }

    private func readFromService(_ content: ContainerdContent) async throws -> ClassifiedContent? {
        let probe = try await client.readContent(
            content.digest, offset: 0, count: min(Self.probeSize, Int(content.size)))
        guard let probe else { return nil }
        guard Self.mayBeJSON(probe) else { return ClassifiedContent(content, nil) }
        let bytes = try await client.readContent(content.digest, offset: 0, count: Int(content.size))
        return bytes.map { ClassifiedContent(content, ManifestSummary($0.readableBytesView)) }
    }

    /// Whether the first byte that is not white space opens an object; a probe of white space only leaves it open.
    private static func mayBeJSON(_ probe: ByteBuffer) -> Bool {
        let first = probe.readableBytesView.first { $0 != 0x20 && $0 != 0x0a && $0 != 0x0d && $0 != 0x09 }
        return first == nil ? probe.readableBytes > 0 : first == UInt8(ascii: "{")
    }
}

extension ClassifiedContent {
    init(_ content: ContainerdContent, _ summary: ManifestSummary?) {
        self.init(
            digest: content.digest, size: content.size, mediaType: summary?.mediaType ?? .octetStream,
            children: summary?.references ?? [], sources: content.sources)
    }
}

/// Transforms elements, `limit` at a time.
///
/// - Returns: the results in no particular order.
func mapConcurrently<Element: Sendable, Result: Sendable>(
    _ elements: some Sequence<Element> & Sendable, limit: Int,
    _ transform: @Sendable @escaping (Element) async throws -> Result
) async throws -> [Result] {
    try await withThrowingTaskGroup(of: Result.self) { group in
        var results: [Result] = []
        var running = 0
        for element in elements {
            if running == limit, let result = try await group.next() {
                results.append(result)
                running -= 1
            }
            group.addTask { try await transform(element) }
            running += 1
        }
        for try await result in group { results.append(result) }
        return results
    }
}
