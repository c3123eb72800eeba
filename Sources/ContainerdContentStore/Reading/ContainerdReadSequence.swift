#if Containerd
    import ContentStore
    import NIOCore
    import OCIDistribution

    /// The bytes of a range of content, asked of containerd piece by piece.
    ///
    /// A piece is asked for when it is wanted, so that a slow reader holds one piece in memory and nothing in containerd.
    struct ContainerdReadSequence: AsyncSequence, Sendable {
        typealias Element = ByteBuffer
        typealias Failure = any Error

        /// How much one call asks for, in bytes; containerd sends it as one message.
        static let pieceSize: Int64 = 1 << 20

        let digest: Digest
        let range: Range<Int64>
        /// The client of the moment: a read goes on over a reconnection that falls between two pieces.
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
#endif
