import NIOCore
import OCIDistribution

/// Content that was opened for reading.
public struct OpenContent: Sendable {
    /// What is known of the content. The size is known when the content is opened, even if bytes arrive later.
    public var info: ContentInfo
    /// The bytes.
    public var body: Body

    /// Creates open content.
    public init(info: ContentInfo, body: Body) {
        self.info = info
        self.body = body
    }

    /// Where the bytes are. New cases may be added.
    public enum Body: Sendable {
        /// In memory, as a whole; for small content such as manifests.
        case bytes(ByteBuffer)
        /// In a file, to be sent with `sendfile(2)`.
        case file(ContentFile)
        /// Behind a service that is asked range by range, or still arriving.
        case stream(ContentStream)
    }
}

/// Content that is read as a stream of buffers.
public struct ContentStream: Sendable {
    /// Bytes of a range, in order. The concatenation has exactly the range's length, or the sequence throws.
    public typealias Bytes = any AsyncSequence<ByteBuffer, any Error> & Sendable

    /// The size in bytes of the whole content.
    public let size: Int64
    private let openRange: @Sendable (Range<Int64>) -> Bytes

    /// Creates a stream.
    ///
    /// - Parameters:
    ///   - size: the size in bytes of the whole content.
    ///   - open: gives the bytes of a range within `0..<size`. It must not block; the work happens while iterating.
    public init(size: Int64, open: @escaping @Sendable (Range<Int64>) -> Bytes) {
        self.size = size
        self.openRange = open
    }

    /// Gives the bytes of a range, which is clamped to `0..<size`.
    public func open(_ range: Range<Int64>) -> Bytes {
        openRange(range.clamped(to: 0..<size))
    }
}
