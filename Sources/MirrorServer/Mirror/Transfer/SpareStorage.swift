import NIOCore

extension ByteBuffer {
    /// These bytes, copied if they are a small part of what they keep in memory.
    ///
    /// What is held back, or waits to be hashed, shall need about as much memory as it is counted for, however small the
    /// pieces are that a peer sends.
    func withoutSpareStorage() -> ByteBuffer {
        guard readableBytes < storageCapacity / 4 else { return self }
        var copy = ByteBufferAllocator().buffer(capacity: readableBytes)
        copy.writeImmutableBuffer(self)
        return copy
    }
}
