import NIOCore

/// The bytes of open content as a sequence of buffers, wherever they are. For those who look at the bytes; a server that
/// sends a file does better with ``ContentFile/fileRegion(_:)``.
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
