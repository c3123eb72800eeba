import NIOCore

/// Gives every read its own buffer, so that an idle connection holds none. (Allocators that say the next size make
/// the channel keep one buffer for ever, which 10,000 idle connections would feel.)
struct TransientReceiveAllocator: RecvByteBufferAllocator {
    let capacity: Int

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer { allocator.buffer(capacity: capacity) }

    mutating func record(actualReadBytes: Int) -> Bool { false }
}
