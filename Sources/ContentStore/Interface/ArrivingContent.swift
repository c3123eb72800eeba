import NIOCore
import OCIDistribution

/// Content that is still being written to a store: its size is known, and its bytes come in order.
///
/// Its bytes are not verified: whoever reads them compares the digest of the whole.
public struct ArrivingContent: Sendable {
    /// How much of the content is there.
    public enum Status: Sendable, Hashable {
        /// So many bytes, from the first on.
        case arriving(bytes: Int64)
        /// All bytes. The store may still be verifying them.
        case complete
        /// The writer has given up, or began anew: the rest does not come.
        case failed
    }

    /// The digest that the finished content must have.
    public let digest: Digest
    /// The size in bytes that the finished content will have.
    public let size: Int64
    private let source: any ArrivingSource

    /// Describes content that arrives.
    public init(digest: Digest, size: Int64, source: any ArrivingSource) {
        self.digest = digest
        self.size = size
        self.source = source
    }

    /// How much is there now. Does not wait.
    public var status: Status { source.status }

    /// The content as a stream whose ranges wait for bytes that have not arrived.
    ///
    /// The first piece of each range is empty and comes at once, so that a server can send the head of its response.
    ///
    /// - Parameter stallTimeout: how long a range waits for the next byte before it fails.
    public func stream(stallTimeout: Duration) -> ContentStream {
        ContentStream(size: size) { [self] range in
            ArrivingBytes(content: self, range: range, stallTimeout: stallTimeout)
        }
    }

    fileprivate func read(at offset: Int64, count: Int) async throws -> ByteBuffer {
        try await FileWork.run { [source] in try source.read(at: offset, count: count) }
    }
}

/// Where the bytes of ``ArrivingContent`` are. Implemented by stores.
public protocol ArrivingSource: Sendable {
    /// How much is there. Blocks for no longer than an `fstat(2)`.
    var status: ArrivingContent.Status { get }

    /// Reads bytes that are there; may block for the file system.
    ///
    /// - Returns: at most `count` bytes from `offset` on; none when they have gone.
    /// - Throws: ``ContentStoreError``.
    func read(at offset: Int64, count: Int) throws -> ByteBuffer
}

/// The bytes of a range of content that arrives, as they come.
///
/// Waits by polling: an arriving file may be another process's, and its writer reports nothing.
struct ArrivingBytes: AsyncSequence, Sendable {
    typealias Element = ByteBuffer
    typealias Failure = any Error

    /// How often the writer's progress is looked at while nothing is there to read.
    static let pollInterval = Duration.milliseconds(20)
    /// Most bytes of a piece.
    static let pieceBytes: Int64 = 256 << 10

    let content: ArrivingContent
    let range: Range<Int64>
    let stallTimeout: Duration

    func makeAsyncIterator() -> Iterator { Iterator(bytes: self, position: range.lowerBound) }

    struct Iterator: AsyncIteratorProtocol {
        let bytes: ArrivingBytes
        var position: Int64
        var hasBegun = false

        mutating func next() async throws -> ByteBuffer? {
            guard hasBegun else {
                hasBegun = true
                return ByteBuffer()
            }
            guard position < bytes.range.upperBound else { return nil }
            let frontier = try await waitForBytes()
            let count = Int(Swift.min(ArrivingBytes.pieceBytes, Swift.min(frontier, bytes.range.upperBound) - position))
            let piece = try await bytes.content.read(at: position, count: count)
            guard piece.readableBytes > 0 else { throw failure("its bytes have gone") }
            position += Int64(piece.readableBytes)
            return piece
        }

        /// Waits until the byte at the position is there.
        ///
        /// - Returns: the end of what is there.
        private func waitForBytes() async throws -> Int64 {
            var (seen, since) = (Int64(-1), ContinuousClock.now)
            while true {
                switch bytes.content.status {
                case .failed: throw failure("its writer has given up")
                case .complete: return bytes.content.size
                case .arriving(let count) where count > position: return count
                case .arriving(let count):
                    if count < seen { throw failure("its writer began anew") }
                    let now = ContinuousClock.now
                    if count > seen { (seen, since) = (count, now) }
                    if now - since >= bytes.stallTimeout { throw failure("nothing came for \(bytes.stallTimeout)") }
                }
                try await Task.sleep(for: ArrivingBytes.pollInterval)
            }
        }

        private func failure(_ reason: String) -> ContentStoreError {
            .unavailable("\(bytes.content.digest) stopped arriving at byte \(position): \(reason)")
        }
    }
}

/// The unfinished writers of a store by digest.
struct ArrivingWriters<Writer: AnyObject & Sendable>: Sendable {
    private struct Weak: Sendable { weak var writer: Writer? }

    private var writers: [Digest: [ObjectIdentifier: Weak]] = [:]

    /// Adds a writer; at most as many as the store allows at a time.
    mutating func add(_ writer: Writer, of digest: Digest) {
        writers[digest, default: [:]][ObjectIdentifier(writer)] = Weak(writer: writer)
    }

    /// Removes a writer that has ended, or is being released.
    mutating func remove(_ writer: ObjectIdentifier, of digest: Digest) {
        writers[digest]?[writer] = nil
        if writers[digest]?.isEmpty ?? false { writers[digest] = nil }
    }

    /// The writers of a digest.
    func all(of digest: Digest) -> [Writer] { writers[digest]?.values.compactMap(\.writer) ?? [] }
}
