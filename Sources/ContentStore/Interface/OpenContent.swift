import NIOCore
import NIOPosix
import OCIDistribution

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

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

/// An open, regular file that holds content.
///
/// It owns its file descriptor, which is closed when the object is released. A ``fileRegion(_:)`` does not keep it
/// alive: hold the `ContentFile` until the write of the region is done. The file may have been deleted or replaced in
/// the store meanwhile; the opened one stays readable.
public final class ContentFile: Sendable {
    /// The size in bytes the file had when it was opened.
    public let size: Int64
    private let descriptor: CInt
    private let handle: NIOFileHandle

    /// Takes over an open file descriptor.
    ///
    /// - Parameters:
    ///   - descriptor: open for reading; closed by this object from now on.
    ///   - size: the file's size in bytes.
    public init(takingOwnershipOf descriptor: CInt, size: Int64) {
        self.descriptor = descriptor
        self.size = size
        self.handle = NIOFileHandle(_deprecatedTakingOwnershipOfDescriptor: descriptor)
    }

    deinit {
        // The handle refuses to close while an event loop is in a sendfile(2) on it, which is short.
        for _ in 0..<100_000 {
            do {
                try handle.close()
                return
            } catch let error as IOError where error.errnoCode == EBUSY {
                sched_yield()
            } catch {
                return
            }
        }
    }

    /// The region of the file to write to a NIO channel, which sends it with `sendfile(2)` where it can.
    ///
    /// Only one write of one file may be under way at a time; open the content again for another.
    ///
    /// - Parameter range: bytes of the file, clamped to `0..<size`.
    public func fileRegion(_ range: Range<Int64>) -> FileRegion {
        let range = range.clamped(to: 0..<size)
        return FileRegion(
            fileHandle: handle, readerIndex: Int(range.lowerBound), endIndex: Int(range.upperBound))
    }

    /// Reads bytes, blocking the calling thread. It does not move any file position, so it may be called concurrently.
    ///
    /// - Parameters:
    ///   - offset: the position in bytes of the first byte.
    ///   - count: how many bytes to read at most.
    ///   - allocator: makes the buffer.
    /// - Returns: `count` bytes, or fewer only at the end of the file.
    /// - Throws: ``ContentStoreError/io(_:errno:)``.
    public func read(
        at offset: Int64, count: Int, allocator: ByteBufferAllocator = ByteBufferAllocator()
    ) throws(ContentStoreError) -> ByteBuffer {
        var buffer = allocator.buffer(capacity: max(0, count))
        while buffer.readableBytes < count {
            let position = offset + Int64(buffer.readableBytes)
            let wanted = count - buffer.readableBytes
            let got = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: wanted) { space in
                max(0, pread(descriptor, space.baseAddress, wanted, off_t(position)))
            }
            if got > 0 { continue }
            // The closure cannot return an error, so another read finds out whether it was an error or the end of the file.
            var probe: UInt8 = 0
            let again = pread(descriptor, &probe, 1, off_t(position))
            if again == 1 { continue }
            if again == 0 { break }
            if errno == EINTR { continue }
            throw .io("read of a content file", errno: errno)
        }
        return buffer
    }
}

/// The bytes of open content as a sequence of buffers, for programs that process the bytes. To send a file, use
/// ``ContentFile/fileRegion(_:)``.
public struct ContentBytes: AsyncSequence, Sendable {
    /// A piece of the content, never empty.
    public typealias Element = ByteBuffer
    /// Any error of the backend.
    public typealias Failure = any Error

    let body: OpenContent.Body
    let range: Range<Int64>
    let chunkSize: Int

    /// Begins to read.
    public func makeAsyncIterator() -> Iterator { Iterator(bytes: self) }

    /// Gives pieces one by one.
    public struct Iterator: AsyncIteratorProtocol {
        private let bytes: ContentBytes
        private var position: Int64
        private var stream: (any AsyncIteratorProtocol<ByteBuffer, any Error>)?

        init(bytes: ContentBytes) {
            self.bytes = bytes
            position = bytes.range.lowerBound
            if case .stream(let stream) = bytes.body { self.stream = Self.iterator(stream.open(bytes.range)) }
        }

        private static func iterator(
            _ sequence: some AsyncSequence<ByteBuffer, any Error>
        ) -> any AsyncIteratorProtocol<ByteBuffer, any Error> { sequence.makeAsyncIterator() }

        /// Reads the next piece; `nil` at the end of the range.
        ///
        /// - Throws: the backend's error; ``ContentStoreError/unavailable(_:)`` when there are fewer bytes than the
        ///   content had when it was opened.
        public mutating func next() async throws -> ByteBuffer? {
            guard position < bytes.range.upperBound else { return nil }
            let wanted = Int(Swift.min(Int64(bytes.chunkSize), bytes.range.upperBound - position))
            let piece: ByteBuffer?
            switch bytes.body {
            case .bytes(let buffer):
                piece = buffer.getSlice(at: buffer.readerIndex + Int(position), length: wanted)
            case .file(let file):
                piece = try await FileWork.run { [position] in try file.read(at: position, count: wanted) }
            case .stream:
                piece = try await nextOfStream()
            }
            guard let piece, piece.readableBytes > 0 else {
                throw ContentStoreError.unavailable(
                    "content ends at byte \(position), before byte \(bytes.range.upperBound)")
            }
            position += Int64(piece.readableBytes)
            return piece
        }

        private mutating func nextOfStream() async throws -> ByteBuffer? {
            guard var iterator = stream else { return nil }
            stream = nil
            defer { stream = iterator }
            while let piece = try await iterator.next() {
                if piece.readableBytes > 0 { return piece }
            }
            return nil
        }
    }
}

extension OpenContent {
    /// Reads the content, or a range of it, piece by piece.
    ///
    /// - Parameters:
    ///   - range: bytes of the content, clamped to its size; all of it when `nil`.
    ///   - chunkSize: how many bytes a piece has at most, from memory or a file.
    public func read(_ range: Range<Int64>? = nil, chunkSize: Int = 256 << 10) -> ContentBytes {
        let whole = 0..<info.size
        return ContentBytes(body: body, range: (range ?? whole).clamped(to: whole), chunkSize: max(1, chunkSize))
    }

    /// Reads all of the content into memory.
    ///
    /// - Parameter limit: how many bytes it may have.
    /// - Throws: ``ContentStoreError/sizeMismatch(_:expected:actual:)`` when it has more; the backend's error.
    public func collect(upTo limit: Int) async throws -> ByteBuffer {
        guard info.size <= Int64(limit) else {
            throw ContentStoreError.sizeMismatch(info.digest, expected: Int64(limit), actual: info.size)
        }
        if case .bytes(let buffer) = body { return buffer }
        var result = ByteBufferAllocator().buffer(capacity: Int(info.size))
        for try await var piece in read() { result.writeBuffer(&piece) }
        return result
    }
}
