import ContentStore
import GRPCCore
import NIOCore
import OCIDistribution
import SwiftProtobuf

/// One piece of content according to containerd's content service.
package struct ContainerdContent: Sendable, Hashable {
    /// The content's digest.
    package var digest: Digest
    /// The content's size in bytes.
    package var size: Int64
    /// The repositories it was pulled from, from the `containerd.io/distribution.source.…` labels.
    package var sources: [ContentSource]
}

extension ContainerdClient {
    var content: Containerd_Services_Content_V1_Content.Client<Transport> { .init(wrapping: grpc) }

    /// Describes content; `nil` when the namespace does not have it.
    package func contentInfo(_ digest: Digest) async throws -> ContainerdContent? {
        try await nilIfNotFound {
            try await content.info(.with { $0.digest = digest.description }, metadata: metadata(), options: unary)
        }.flatMap { ContainerdContent($0.info) }
    }

    /// Lists all content of the namespace, in batches as containerd sends them.
    ///
    /// - Parameter batch: called with each batch, and the number of its entries with an unsupported digest.
    package func listContent(_ batch: @Sendable @escaping ([ContainerdContent], Int) async throws -> Void)
        async throws
    {
        try await content.list(.init(), metadata: metadata(), options: listing) { response in
            // Content of one image has the same sources, which share one array.
            var known: Set<[ContentSource]> = []
            for try await message in response.messages {
                let items = message.info.compactMap { info in
                    ContainerdContent(info).map { content in
                        var content = content
                        content.sources = known.insert(content.sources).memberAfterInsert
                        return content
                    }
                }
                try await batch(items, message.info.count - items.count)
            }
        }
    }

    /// Reads a range of content into memory.
    ///
    /// - Returns: `count` bytes, or fewer at the end of the content; `nil` when the content is absent.
    package func readContent(_ digest: Digest, offset: Int64, count: Int) async throws -> ByteBuffer? {
        let request = Containerd_Services_Content_V1_ReadContentRequest.with {
            $0.digest = digest.description
            $0.offset = offset
            $0.size = Int64(count)
        }
        // A size of zero would mean everything.
        guard count > 0 else { return ByteBuffer() }
        return try await nilIfNotFound {
            try await content.read(request, metadata: metadata(), options: unary) { response in
                var bytes = ByteBuffer()
                bytes.reserveCapacity(count)
                for try await message in response.messages {
                    guard bytes.readableBytes + message.data.count <= count else {
                        throw RPCError(code: .dataLoss, message: "containerd sent more bytes than requested")
                    }
                    bytes.writeBytes(message.data)
                }
                return bytes
            }
        }
    }

    /// Lists the references of active ingests.
    package func listIngests() async throws -> [String] {
        try await content.listStatuses(.init(), metadata: metadata(), options: unary).statuses.map(\.ref)
    }

    /// Sets labels of content; others stay as they are.
    ///
    /// - Returns: `false` when the content is absent.
    package func label(_ digest: Digest, with labels: [String: String]) async throws -> Bool {
        let request = Containerd_Services_Content_V1_UpdateRequest.with {
            $0.info.digest = digest.description
            $0.info.labels = labels
            $0.updateMask.paths = labels.keys.sorted().map { "labels.\($0)" }
        }
        return try await nilIfNotFound {
            try await content.update(request, metadata: metadata(), options: unary)
        } != nil
    }

    /// Removes content from the namespace, if it exists; garbage collection removes the bytes.
    package func deleteContent(_ digest: Digest) async throws {
        _ = try await nilIfNotFound {
            try await content.delete(.with { $0.digest = digest.description }, metadata: metadata(), options: unary)
        }
    }

    /// Aborts an ingest, if it exists.
    package func abortIngest(_ reference: String) async throws {
        _ = try await nilIfNotFound {
            try await content.abort(.with { $0.ref = reference }, metadata: metadata(), options: unary)
        }
    }
}

extension ContainerdContent {
    private static let sourceLabel = "containerd.io/distribution.source."
    /// Most sources of one piece of content; containerd limits a label to 4 KiB.
    private static let sourceLimit = 64

    init?(_ info: Containerd_Services_Content_V1_Info) {
        guard info.size >= 0, let digest = Digest(info.digest) else { return nil }
        var sources: [ContentSource] = []
        for (key, value) in info.labels where key.hasPrefix(Self.sourceLabel) {
            let registry = String(key.dropFirst(Self.sourceLabel.count))
            for repository in value.split(separator: ",") where sources.count < Self.sourceLimit {
                sources.append(ContentSource(registry: registry, repository: String(repository)))
            }
        }
        self.init(digest: digest, size: info.size, sources: sources.sorted())
    }
}

/// The bytes of a range of content, read through containerd piece by piece, so that a slow reader holds one piece in memory
/// and no call in containerd.
struct ContainerdReadSequence: AsyncSequence, Sendable {
    typealias Element = ByteBuffer
    typealias Failure = any Error

    /// The size of one read in bytes; containerd sends it as one message.
    static let pieceSize: Int64 = 1 << 20

    let digest: Digest
    let range: Range<Int64>
    /// The current client: a read survives a reconnection between two pieces.
    let client: @Sendable () throws -> ContainerdClient

    func makeAsyncIterator() -> Iterator { Iterator(sequence: self, offset: range.lowerBound) }

    struct Iterator: AsyncIteratorProtocol {
        let sequence: ContainerdReadSequence
        var offset: Int64

        mutating func next() async throws -> ByteBuffer? {
            let remainder = sequence.range.upperBound - offset
            guard remainder > 0 else { return nil }
            let count = Int(Swift.min(remainder, ContainerdReadSequence.pieceSize))
            let (digest, offset) = (sequence.digest, offset)
            let client = sequence.client
            let piece = try await asStoreError {
                try await client().readContent(digest, offset: offset, count: count)
            }
            guard let piece else { throw ContentStoreError.absent(digest) }
            guard piece.readableBytes == count else {
                throw ContentStoreError.corrupt(
                    digest, reason: "containerd gave \(piece.readableBytes) bytes of \(count) at \(offset)")
            }
            self.offset += Int64(count)
            return piece
        }
    }
}
